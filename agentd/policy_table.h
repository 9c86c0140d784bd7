// Policy tables: calls and what a policy must say of them, as TOML.
//
//   policy = "../default.toml"           # beside this file, or a name of the catalogue
//   [[case]]
//   why = "a web page does not start programs"
//   exec = ["/usr/bin/python3", "x.py"]  # or read, write, connect = "…"
//   label = "operator,web:page.test"     # of the agent; without: operator,user
//   expect = "UNTRUSTED_ORIGIN"          # or "allow", or another reason code
//
// Optional in a case: `file` (the label of the file, else its zone's), `run_by` (the interpreters
// and the loader of an exec), `rule` (the id that must decide), `used` (calls that every rule has
// already allowed), `raises_to` (the agent's label afterwards). @workspace/… and ~/… stand for
// /workspace and /home/agent. `exec` begins with the path of the file, as resolved, and the argv[0]
// that the rules see is its last name, as shells pass it; or with another argv[0], and `program` is
// the file.
#pragma once

#include <string>
#include <vector>

#include "kernel/result.h"

namespace certgate::agentd {

struct CaseResult {
  std::string place;  // "file:line"
  std::string why;
  std::string wanted;
  std::string verdict;      // one line
  std::string explanation;  // some lines
  bool passed = false;
};

// Errors name file, line, column and the cure. A table without cases is an error.
Result<std::vector<CaseResult>> run_policy_table(const std::string& path);

}  // namespace certgate::agentd
