#include "kernel/tool.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "kernel/mutant.h"
#include "kernel/policy.h"

namespace certgate::kernel {
namespace {

// "a-z0-9_-": ranges and single characters.
bool in_set(std::string_view set, char c) {
  for (size_t i = 0; i < set.size(); ++i) {
    const bool range = i + 2 < set.size() && set[i + 1] == '-';
    if (range ? set[i] <= c && c <= set[i + 2] : set[i] == c) return true;
    if (range) i += 2;
  }
  return false;
}

// As a program in `cwd` would reach it; "" with "..", which only the file system can resolve.
std::string settled(const std::string& cwd, const std::string& path) {
  const std::string whole = path.starts_with('/') ? path : cwd + "/" + path;
  std::string out;
  for (size_t at = 0; at < whole.size();) {
    const size_t end = std::min(whole.find('/', at), whole.size());
    const std::string part = whole.substr(at, end - at);
    if (part == "..") return "";
    if (!part.empty() && part != ".") out += "/" + part;
    at = end + 1;
  }
  return out.empty() ? "/" : out;
}

bool any_matches(const std::vector<PathPattern>& patterns, const std::string& path) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const PathPattern& p) { return p.matches(path, false); });
}

// One attempt to match the arguments.
class Matching {
 public:
  Matching(const Tool& tool, const ExecEffect& exec, ToolFit& fit)
      : parts_(tool.parts), exec_(exec), fit_(fit), used_(tool.parts.size()) {}

  bool run() {
    while (fit_.argv.size() < exec_.argv.size()) {
      if (!take()) return false;
    }
    for (size_t part = at_; part < parts_.size(); ++part) {
      if (!parts_[part].optional && !used_[part]) return stop(name(part) + " is missing");
    }
    return true;
  }

 private:
  std::string name(size_t part) const {
    return parts_[part].flag.empty() ? "value " + std::to_string(part) : parts_[part].flag;
  }
  bool stop(std::string why) {
    fit_.element = "argv[" + std::to_string(fit_.argv.size()) + "]";
    fit_.why = std::move(why);
    return false;
  }
  bool take() {
    std::string why = "the tool has no more arguments";
    for (size_t part = at_; part < parts_.size(); ++part) {
      const uint32_t group = parts_[part].group;
      if (part > at_ && (group == 0 || parts_[part - 1].group != group)) {
        // This part begins only when all before it have had their turn.
        for (size_t i = at_; i < part; ++i) {
          if (!parts_[i].optional && !used_[i]) return stop(std::move(why));
        }
      }
      if (used_[part] && !parts_[part].repeats) continue;
      const std::string fault = fits(parts_[part]);
      if (!fault.empty()) {
        why = fault + ": " + name(part);
        continue;
      }
      used_[part] = true;
      at_ = part;
      while (group != 0 && at_ > 0 && parts_[at_ - 1].group == group) --at_;
      return true;
    }
    return stop(std::move(why));
  }
  // Takes one or two arguments, or says why not.
  std::string fits(const ToolPart& part) {
    const size_t i = fit_.argv.size();
    const std::string& argument = exec_.argv[i];
    if (!part.value) {
      if (argument != part.flag) return "is not what the tool says";
      return fit_.argv.push_back(nullptr), "";
    }
    const ValueSpec* by = part.value->one_of.empty() ? &*part.value : nullptr;
    const bool joined = part.flag.ends_with('=');
    if (!part.flag.empty() && (joined ? !argument.starts_with(part.flag) : argument != part.flag))
      return "is not the flag that the tool says";
    const bool apart = !part.flag.empty() && !joined;
    if (apart && i + 1 >= exec_.argv.size()) return "has no value";
    std::string fault = part.value->fault(
        apart ? exec_.argv[i + 1] : argument.substr(joined ? part.flag.size() : 0), exec_.cwd);
    if (!fault.empty()) return fault;
    if (apart) fit_.argv.push_back(nullptr);
    return fit_.argv.push_back(by), "";
  }

  const std::vector<ToolPart>& parts_;
  const ExecEffect& exec_;
  ToolFit& fit_;
  std::vector<bool> used_;
  size_t at_ = 0;  // the first part that may still take an argument
};

bool fit_env(const Tool& tool, const ExecEffect& exec, ToolFit& fit) {
  std::set<std::string_view> seen;  // a program may read the first or the last of two
  for (const std::string& text : exec.env) {
    const size_t equals = text.find('=');
    const std::string name = text.substr(0, equals);
    const auto it = std::find_if(tool.env.begin(), tool.env.end(), [&](const ToolVariable& v) {
      return v.name.ends_with('*') ? name.starts_with(v.name.substr(0, v.name.size() - 1))
                                   : name == v.name;
    });
    fit.element = "env " + name.substr(0, 128);
    fit.why = "is not a variable that the tool may have";
    if (it == tool.env.end() || equals == std::string::npos) return false;
    fit.why = "is given twice";
    if (!seen.insert(std::string_view(text).substr(0, equals)).second) return false;
    fit.why = it->value.fault(text.substr(equals + 1), exec.cwd);
    if (!fit.why.empty()) return false;
    fit.env.push_back(it->value.one_of.empty() ? &it->value : nullptr);
  }
  return true;
}

}  // namespace

bool is_loader(const ExecEffect& exec, size_t image) {
  if (image == 0 || image + 1 != exec.images.size()) return false;
  const std::string& path = exec.images[image].path;
  return path.compare(path.find_last_of('/') + 1, 3, "ld-") == 0;
}

std::string ValueSpec::fault(const std::string& text, const std::string& cwd) const {
  const auto is_match = [&](const std::string& p) { return argv_matches({p}, {text}); };
  if (!one_of.empty()) {
    const bool spelled = std::find(one_of.begin(), one_of.end(), text) != one_of.end();
    return spelled ? "" : "is none of the values that the tool spells out";
  }
  if (type == ValueType::kInteger) {
    int64_t n = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    // One spelling for each: programs differ in how they read others.
    if (error != std::errc() || end != text.data() + text.size() || std::to_string(n) != text)
      return "is no whole number";
    return n < min || n > max ? "is out of range" : "";
  }
  const auto size = static_cast<int64_t>(text.size());
  if (size < min || size > max) return "is too short or too long";
  if (!dash && text.starts_with('-')) return "could be read as an option";
  if (!chars.empty() &&
      !std::all_of(text.begin(), text.end(), [&](char c) { return in_set(chars, c); }))
    return "has other characters than the tool allows";
  if (!patterns.empty() && std::none_of(patterns.begin(), patterns.end(), is_match))
    return "does not match the tool's pattern";
  const std::string path = type == ValueType::kPath ? settled(cwd, text) : "";
  return type == ValueType::kPath && !any_matches(within, path) ? "is not where the tool may go"
                                                                : "";
}

ToolFit fit_tool(const Tool& tool, const ExecEffect& exec) {
  ToolFit out;
  const ExecImage& image = exec.images[0];
  if (image.path != tool.program) return out;
  const auto say = [&](Fit fit, std::string element, std::string why) {
    out.fit = fit;
    out.element = std::move(element);
    out.why = std::move(why);
    return out;
  };
  if (!mutant(Mutant::kToolPin) && tool.pin != Tool::Pin::kNone && image.sha256 != tool.sha256)
    return say(Fit::kMismatch, "file", "is not the program that was pinned");
  // A script is told the name that the caller used, and may find its other files by that.
  const bool script = exec.images.size() > 1 && !is_loader(exec, 1);
  if (script && settled(exec.cwd, exec.named) != tool.program)
    return say(Fit::kBreakout, "name", "is not the script's own: " + tool.program);
  size_t bytes = 0;
  for (const std::string& argument : exec.argv) bytes += argument.size() + 1;
  if (bytes > kMaxToolBytes) return say(Fit::kBreakout, "argv", "is longer than 64 KiB");
  out.fit = Fit::kBreakout;
  if (!Matching(tool, exec, out).run() || !fit_env(tool, exec, out)) return out;
  if (!any_matches(tool.cwd, exec.cwd))
    return say(Fit::kBreakout, "cwd", "is not a directory that the tool works in");
  if (tool.descriptors == Tool::Descriptors::kStdio && !exec.inherited.empty())
    return say(Fit::kBreakout, "fd " + std::to_string(exec.inherited[0]),
               "is handed on to a tool that has only stdin, stdout and stderr");
  return say(Fit::kFits, "", "");
}

}  // namespace certgate::kernel
