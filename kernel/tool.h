// Tool: a program, and the exact form of the calls that a rule grants when it names the tool.
//
//   const ToolFit fit = fit_tool(tool, exec);
//   if (fit.fit == Fit::kBreakout) …        // fit.element "argv[3]", fit.why: what does not hold
//
// Other content than the pinned one is TOOL_MISMATCH; anything that the tool does not spell out, an
// argument, a variable, a directory, a descriptor, is SCHEMA_BREAKOUT. Arguments are matched from
// left to right, each by the first part from there on that fits it:
//   part = literal | value | flag value | "--name=" value      once, or any number when it repeats
//   A part that is not optional is not passed over; parts side by side with the same group number
//   come in any order.
// There is no way back: the time is arguments × parts, and what does not fit this way is refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernel/call.h"
#include "kernel/label.h"

namespace certgate::kernel {

class PathPattern;  // policy.h

inline constexpr size_t kMaxToolParts = 64;
inline constexpr size_t kMaxToolBytes = 65536;  // of all arguments of a call

enum class ValueType : uint8_t { kText, kInteger, kPath };

// What one argument or variable may say.
struct ValueSpec {
  std::vector<std::string> one_of;  // exactly one of these; then nothing below counts
  ValueType type = ValueType::kText;
  int64_t min = 1, max = 4096;        // of an integer; else bytes
  std::string chars;                  // "a-z0-9_": only these; empty: any
  std::vector<std::string> patterns;  // one of these matches all of it, '*' any bytes; empty: any
  std::vector<PathPattern> within;    // path, from the working directory; links are not followed
  bool dash = false;                  // may begin with '-', as an option does
  // Origins of a value that one_of does not spell; none: what the rule accepts.
  std::optional<AcceptSet> accept;

  // What does not hold, "" when all does.
  std::string fault(const std::string& text, const std::string& cwd) const;
};

struct ToolPart {
  std::string flag;                // "-m": its value is the next argument; "--x=": the same one
  std::optional<ValueSpec> value;  // none: the flag, or literal, alone
  bool optional = false, repeats = false;
  uint32_t group = 0;
};

struct ToolVariable {
  std::string name;  // "LC_*": all that begin so
  ValueSpec value;
};

struct Tool {
  enum class Pin : uint8_t { kNone, kExact, kAtStart };
  enum class Descriptors : uint8_t { kStdio, kAny };
  std::string name, why, program;  // the program's resolved path
  Pin pin = Pin::kNone;
  Digest sha256{};                  // kAtStart: taken when the run starts, not part of the policy
  std::vector<std::string> run_by;  // interpreters of a script, granted with it
  std::vector<ToolPart> parts;      // the first is argv[0]
  std::vector<ToolVariable> env;
  std::vector<PathPattern> cwd;
  Descriptors descriptors = Descriptors::kStdio;
  std::string source;  // "file:line"; not part of the digest
};

enum class Fit : uint8_t { kOtherProgram, kMismatch, kBreakout, kFits };

struct ToolFit {
  Fit fit = Fit::kOtherProgram;
  std::string element, why;  // what did not fit
  // Parallel to the call's: the value that took each, null: the policy spells it out.
  std::vector<const ValueSpec*> argv, env;
};

ToolFit fit_tool(const Tool& tool, const ExecEffect& exec);

// The ELF loader at the end of a chain.
bool is_loader(const ExecEffect& exec, size_t image);

}  // namespace certgate::kernel
