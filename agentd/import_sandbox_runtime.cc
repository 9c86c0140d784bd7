// Settings of sandbox-runtime (srt): any program, a list of domains, lists of paths. Denials of
// reading and lists for writing; of two that meet, its allowRead beats denyRead, its denyWrite
// beats allowWrite. Here a forbid beats both.
#include "agentd/import_draft.h"
#include "agentd/json_reader.h"

namespace certgate::agentd {
namespace {

namespace json = boost::json;

Status import_network(const json::object& object, const std::string& at, ImportDraft& draft) {
  JsonView view(object, at);
  CG_CHECK(view.texts("allowedDomains", [&](const std::string& text, const std::string& path) {
    draft.host(Say::kAllow, text, path);
  }));
  CG_CHECK(view.texts("deniedDomains", [&](const std::string& text, const std::string& path) {
    draft.host(Say::kForbid, text, path);
  }));
  CG_CHECK(view.texts("allowUnixSockets", [&](const std::string& text, const std::string& path) {
    draft.unix_socket(text, path);
  }));
  CG_TRY(const bool all_sockets, view.flag("allowAllUnixSockets"));
  if (all_sockets) {
    draft.lossy(view.path("allowAllUnixSockets"),
                "sockets are named one by one, or the host is open through them");
  }
  CG_TRY(const bool local, view.flag("allowLocalBinding"));
  if (local) {
    draft.lossy(view.path("allowLocalBinding"),
                "always so: what listens inside is reached from inside only");
  }
  if (object.contains("allowedDomains"))
    draft.lossy(view.path("allowedDomains"), "for the ports 80 and 443; others are named in 'to'");
  for (const std::string& path : view.rest()) draft.lossy(path, "has no counterpart here");
  return ok();
}

Status import_filesystem(const json::object& object, const std::string& at, ImportDraft& draft) {
  JsonView view(object, at);
  CG_CHECK(view.texts("denyRead", [&](const std::string& text, const std::string& path) {
    draft.read(Say::kForbid, text, path, Relative::kToRoot);
  }));
  CG_CHECK(view.texts("allowRead", [&](const std::string& text, const std::string& path) {
    draft.lossy(path, "'" + text + "': a denial beats it here; name less in denyRead");
  }));
  CG_CHECK(view.texts("allowWrite", [&](const std::string& text, const std::string& path) {
    draft.write(Say::kAllow, text, path, Relative::kToRoot);
  }));
  CG_CHECK(view.texts("denyWrite", [&](const std::string& text, const std::string& path) {
    draft.write(Say::kForbid, text, path, Relative::kToRoot);
  }));
  for (const std::string& path : view.rest()) draft.lossy(path, "has no counterpart here");
  return ok();
}

}  // namespace

Status import_sandbox_runtime(const std::string& text, ImportDraft& draft) {
  CG_TRY(const json::value settings, parse_json(text));
  JsonView top(settings.get_object(), "");
  CG_TRY(const json::object* network, top.object("network"));
  CG_TRY(const json::object* filesystem, top.object("filesystem"));
  if (network != nullptr) CG_CHECK(import_network(*network, "network", draft));
  if (filesystem != nullptr) CG_CHECK(import_filesystem(*filesystem, "filesystem", draft));
  draft.any_program("(programs)");
  draft.lossy("(programs)",
              "every program may run there; here while nothing untrusted has touched the agent");
  for (const std::string& path : top.rest()) draft.lossy(path, "has no counterpart here");
  return ok();
}

}  // namespace certgate::agentd
