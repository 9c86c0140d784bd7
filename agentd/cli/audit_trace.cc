// certgate audit why, impact, path: where influence came from and where it went.
#include <iostream>

#include "agentd/cli/audit_verbs.h"
#include "agentd/index/lineage.h"

namespace certgate::agentd::cli {
namespace {

constexpr uint64_t kMaxShown = 10'000;

std::string step_line(const kernel::Record& r) {
  std::string line = escape(r.id()) + "  " + rfc3339(r.wall_ns) + "  ";
  if (r.kind == kernel::RecordKind::kRefusal) line += "refused ";
  line += r.kind == kernel::RecordKind::kRaise
              ? escape(r.why)
              : escape(r.call) + (r.call.empty() ? "" : " ") + escape(r.object);
  if (!r.raised.empty()) line += "  → label " + escape(r.raised);
  if (!r.reason.empty()) line += "  " + escape(r.reason);
  return line;
}

void print_influenced(const Influenced& run, Screen& screen) {
  screen.line(screen.colour(1, "agent " + escape(run.run)) +
              (run.command.empty() ? "" : ": " + run.command));
  static constexpr std::pair<const char*, const char*> kGroups[] = {{"refused", "was refused"},
                                                                    {"exec", "executed"},
                                                                    {"connect", "connected to"},
                                                                    {"write", "changed"},
                                                                    {"read", "read"}};
  for (const auto& [name, words] : kGroups) {
    const auto group = run.groups.find(name);
    if (group == run.groups.end()) continue;
    screen.line("  " + std::string(words) + ": " + std::to_string(group->second.count));
    for (const Step& one : group->second.shown) {
      const std::string line = "    " + step_line(one.record);
      screen.line(group->first == "refused" ? screen.colour(31, line) : line);
    }
  }
}

JsonObject influenced_json(const Influenced& run) {
  JsonObject object;
  object.text("agent", run.run);
  object.text("from", std::to_string(run.from))
      .text("via", run.via ? std::to_string(*run.via) : "")
      .boolean("detailed", run.detailed);
  for (const auto& [name, group] : run.groups) {
    std::vector<JsonObject> steps;
    for (const Step& one : group.shown) steps.push_back(step_json(one.record));
    JsonObject of;
    of.number("count", group.count).objects("first", steps);
    object.object(name, of);
  }
  return object;
}

}  // namespace

int audit_why(const Options& options) {
  Result<Index> index = open_index(options);
  if (!index) return trouble(index.error());
  const Result<Explanation> why = explain(*index, options.args[0], options.value("origin"));
  if (!why) return trouble(why.error());
  Screen screen(options, &*index);
  print_explanation(*why, options.format, screen.out());
  return screen.done(0);
}

int audit_impact(const Options& options) {
  const Result<uint64_t> shown = count_option(options, "limit", kShownByDefault, kMaxShown);
  if (!shown) return trouble(shown.error());
  Result<Index> index = open_index(options);
  if (!index) return trouble(index.error());
  const Result<Impact> impact = impact_of(*index, options.args[0], *shown);
  if (!impact) return trouble(impact.error());
  Screen screen(options, &*index);
  if (options.format == Format::kJson) {
    std::vector<JsonObject> runs;
    for (const Influenced& run : impact->runs) runs.push_back(influenced_json(run));
    JsonObject object;
    screen.out() << object.text("of", impact->what).objects("agents", runs).str() << '\n';
    return screen.done(0);
  }
  screen.line(escape(impact->what) + ": " + std::to_string(impact->runs.size()) +
              " agents are influenced");
  size_t named = 0;
  for (const Influenced& run : impact->runs) {
    print_influenced(run, screen);
    named += run.detailed ? 0 : 1;
  }
  if (named > 0)
    screen.line(screen.colour(2, "what the last " + std::to_string(named) +
                                     " of them did: a larger --limit, or audit timeline"));
  return screen.done(0);
}

int audit_path(const Options& options) {
  Result<Index> index = open_index(options);
  if (!index) return trouble(index.error());
  const Result<std::vector<Step>> path = causal_path(*index, options.args[0], options.args[1]);
  if (!path) return trouble(path.error());
  Screen screen(options, &*index);
  if (options.format == Format::kJson) {
    std::vector<JsonObject> steps;
    for (const Step& one : *path) steps.push_back(step_json(one.record).text("how", one.how));
    JsonObject object;
    screen.out() << object.text("from", options.args[0])
                        .text("to", options.args[1])
                        .objects("path", steps)
                        .str()
                 << '\n';
    return screen.done(path->empty() ? kExitNo : 0);
  }
  if (path->empty())
    screen.line("no path from " + escape(options.args[0]) + " to " + escape(options.args[1]) +
                " in the records");
  for (const Step& one : *path) {
    if (!one.how.empty()) screen.line("  " + screen.colour(2, one.how));
    screen.line("agent " + escape(one.record.run) + "  " + step_line(one.record));
  }
  return screen.done(path->empty() ? kExitNo : 0);
}

}  // namespace certgate::agentd::cli
