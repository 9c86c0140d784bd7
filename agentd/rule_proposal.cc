#include "agentd/rule_proposal.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "agentd/policy_text.h"
#include "kernel/label.h"
#include "kernel/policy.h"
#include "supervisor/report.h"

namespace certgate::agentd {
namespace {

// In a pattern these stand for other bytes too.
Status exact(const std::string& text, const char* wildcards) {
  if (text.find_first_of(wildcards) == std::string::npos) return ok();
  return fail("no rule can name exactly " + text + ", as '*' and '?' are wildcards");
}

}  // namespace

Result<std::string> proposed_rule(const supervisor::ApprovalRequest& request,
                                  const std::string& id) {
  kernel::Rule rule;
  CG_CHECK(exact(request.object, "*?"));
  rule.id = "approved-" + id;
  rule.why = "approved as " + id + ": " + request.why;
  rule.source = "for this action alone; before the rule " + supervisor::escape(request.rule) +
                ", which asks, or in a file that extends its file";
  if (request.verb == "connect") {
    rule.verbs = {kernel::Verb::kConnect};
    CG_TRY(kernel::EndpointPattern place, kernel::EndpointPattern::parse(request.object));
    rule.endpoints.push_back(std::move(place));
  } else {
    CG_TRY(kernel::PathPattern path, kernel::PathPattern::parse(request.object));
    rule.paths.push_back(std::move(path));
  }
  if (request.verb == "exec") {
    rule.verbs = {kernel::Verb::kExec};
    for (const std::string& argument : request.argv) CG_CHECK(exact(argument, "*"));
    rule.argvs.push_back(request.argv);
  }
  if (request.verb.find("read") != std::string::npos) rule.verbs.push_back(kernel::Verb::kRead);
  if (request.verb.find("write") != std::string::npos) rule.verbs.push_back(kernel::Verb::kWrite);
  CG_TRY(const kernel::Label label, kernel::Label::parse(request.label));
  std::vector<std::string> origins;
  for (const kernel::Origin& origin : label.origins()) origins.push_back(origin.text());
  if (origins.empty()) origins.emplace_back("operator");
  CG_TRY(rule.accept, kernel::AcceptSet::parse(origins));
  CG_CHECK(kernel::validate(rule));
  return rule_text(rule);
}

}  // namespace certgate::agentd
