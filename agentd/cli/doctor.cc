// certgate doctor: does each thing that `run` needs, in the order in which `run` does it, and says
// what is missing, what that means and how to get it.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "agentd/cli/verbs.h"
#include "agentd/state_dir.h"
#include "sandbox/probe.h"
#include "supervisor/segment_writer.h"

namespace certgate::agentd::cli {
namespace {

using sandbox::Check;

constexpr int kWorks = 0;
constexpr int kCannotWork = 1;
constexpr int kUsage = 2;

constexpr const char kHelp[] =
    "usage: certgate doctor [--json] [--state DIR]\n\n"
    "Does each thing that `certgate run` needs, in the same order, and names what is missing.\n"
    "  --json       one object a line: check, ok, required, detail, consequence, cure\n"
    "  --state DIR  the state directory that `run` will use\n\n"
    "Exit status: 0 when `run` can work, 1 when it cannot.\n";

struct Options {
  bool json = false;
  bool help = false;
  std::string state;
};

Result<Options> parse(const Args& args) {
  Options options;
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--json")
      options.json = true;
    else if (args[i] == "--help" || args[i] == "-h")
      options.help = true;
    else if (args[i] == "--state" && i + 1 < args.size())
      options.state = args[++i];
    else
      return fail("doctor: unknown argument '" + escape(args[i]) + "'; see certgate doctor --help");
  }
  if (options.state.empty()) options.state = default_state_dir();
  return options;
}

// Opens the directory as `run` does, then makes, syncs and removes a file in it. Returns whether a
// segment there can be mapped (supervisor/segment_writer.h).
Result<bool> write_to_state(const std::string& path) {
  CG_TRY(const sandbox::UniqueFd directory, open_state_dir(path));
  constexpr const char kName[] = "doctor.tmp";
  const sandbox::UniqueFd file(
      openat(directory.get(), kName, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!file) return disk_error(path + "/" + kName, errno);
  Status written = write_all(file.get(), kName, sizeof kName, kName);
  if (written && fsync(file.get()) != 0) written = disk_error(path + "/" + kName, errno);
  unlinkat(directory.get(), kName, 0);
  CG_CHECK(written);
  return supervisor::keeps_reserved_blocks(directory.get());
}

std::vector<Check> check_state(const std::string& path) {
  struct stat before {};
  const bool was_there = lstat(path.c_str(), &before) == 0;
  const Result<bool> written = write_to_state(path);
  if (!was_there) rmdir(path.c_str());  // an empty state directory would look like one in use
  Check write;
  write.what = "write to the state directory";
  write.ok = static_cast<bool>(written);
  write.detail = written ? path : written.error().what;
  write.consequence = "no decision can be recorded, so no agent can be started";
  write.cure = "choose a directory of your own on a writable file system with --state";
  if (!written) return {write};
  Check map;
  map.what = "append records without a system call";
  map.ok = *written;
  map.required = false;
  map.detail = *written ? "" : "the state directory is on none of ext4, XFS, tmpfs";
  map.consequence = "each record is a write(2): every judged call takes most of a microsecond longer";
  map.cure = "choose a directory on one of these with --state";
  return {write, map};
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : escape(text)) {  // no control characters and only UTF-8 after this
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

std::string json_line(const Check& check) {
  const auto yes = [](bool value) { return value ? "true" : "false"; };
  return "{\"check\":" + quoted(check.what) + ",\"ok\":" + yes(check.ok) +
         ",\"required\":" + yes(check.required) + ",\"detail\":" + quoted(check.detail) +
         ",\"consequence\":" + quoted(check.ok ? "" : check.consequence) +
         ",\"cure\":" + quoted(check.ok ? "" : check.cure) + "}";
}

std::string text_lines(const Check& check) {
  const char* mark = check.ok ? "ok    " : check.required ? "FAIL  " : "note  ";
  std::string out = mark + escape(check.what);
  if (!check.detail.empty()) out += ": " + escape(check.detail);
  if (!check.ok)
    out +=
        "\n        means: " + escape(check.consequence) + "\n        cure:  " + escape(check.cure);
  return out;
}

}  // namespace

int doctor_main(const Args& args) {
  const auto options = parse(args);
  if (!options) {
    std::fprintf(stderr, "certgate %s\n", options.error().what.c_str());
    return kUsage;
  }
  if (options->help) {
    std::fputs(kHelp, stdout);
    return kWorks;
  }
  std::vector<Check> checks = check_state(options->state);
  for (Check& check : sandbox::probe_host()) checks.push_back(std::move(check));
  for (Check& check : sandbox::probe_limits()) checks.push_back(std::move(check));
  bool works = true;
  for (const Check& check : checks) {
    works = works && (check.ok || !check.required);
    std::puts((options->json ? json_line(check) : text_lines(check)).c_str());
  }
  if (!options->json)
    std::puts(works ? "\ncertgate run can work here." : "\ncertgate run cannot work here.");
  return works ? kWorks : kCannotWork;
}

}  // namespace certgate::agentd::cli
