// Report: how a call is put into a record, and how a refusal is put into words.
#pragma once

#include <functional>
#include <string>

#include "kernel/decide.h"
#include "kernel/record.h"

namespace certgate::supervisor {

struct CallInfo;

// Verb, object, arguments and identities of a call; kind and verdict are left to the caller.
kernel::Record describe(const CallInfo& info, const kernel::Call& call);
// What a refusal adds to it.
void describe(const kernel::Refusal& refusal, kernel::Record& record);
// "/usr/bin/git" or "page.test:80": what rules match against.
std::string object_text(const kernel::Effects& effect);

// One line for the operator, of a refusal or an observed call: what, why, how to see more. Escaped.
std::string refusal_line(const kernel::Record& record);
// The same as one JSON object with the keys of `certgate audit list --json`.
std::string refusal_json(const kernel::Record& record);

std::string hex(const kernel::Digest& digest);  // lower case

// Makes untrusted bytes safe for a terminal or a log line: control characters, ESC, DEL, the
// backslash, bytes that are not UTF-8 and characters that hide text or turn its direction become
// \xNN (or \n, \t). Printable UTF-8 passes unchanged; two different texts never look the same.
std::string escape(std::string_view bytes);

// Writes one line to stderr in a single write, or gives it to the sink.
void print_line(const std::string& line);

// Who shows the lines while stderr is a terminal that someone else's output goes to. It answers
// whether it took the line. An empty one: stderr again.
using LineSink = std::function<bool(const std::string& line)>;
void set_line_sink(LineSink sink);

}  // namespace certgate::supervisor
