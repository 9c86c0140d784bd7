// Scene: everything on disk and on loopback that the measurements need, made once and removed again.
//
//   CG_TRY(Scene scene, Scene::make(Scene::Size::kFull));
//   scene.inner_program     // a copy of this binary, visible inside a sandbox
//
//   <temporary directory>/
//     workspace/            the agent's; owned by an ordinary uid even when we are root
//       certgate-bench      the inner loop
//       small.txt           what is opened
//       headers/            searched when the host has no header tree of its own
//     policy.toml  state/  labels/  record.log  stderr
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::bench {

// Accepts connections on host loopback until it is destroyed. A process of its own, so that the
// benchmark stays single-threaded and its pinning does not touch it.
class EchoHost {
 public:
  static Result<EchoHost> start();
  EchoHost(EchoHost&& other) noexcept;
  EchoHost& operator=(EchoHost&&) = delete;
  EchoHost(const EchoHost&) = delete;
  EchoHost& operator=(const EchoHost&) = delete;
  ~EchoHost();
  uint16_t port() const { return port_; }

 private:
  EchoHost(pid_t pid, uint16_t port) : pid_(pid), port_(port) {}
  pid_t pid_ = -1;
  uint16_t port_ = 0;
};

// A directory that goes away with its owner.
class TempDir {
 public:
  static Result<TempDir> make();
  TempDir(TempDir&& other) noexcept;
  TempDir& operator=(TempDir&&) = delete;
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir();
  const std::string& path() const { return path_; }

 private:
  explicit TempDir(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

struct Scene {
  enum class Size : uint8_t { kFull, kSmall };
  static Result<Scene> make(Size size);

  TempDir dir;
  EchoHost host;
  std::string inner_program, workspace, small_file, policy, state, labels, error_file;
  std::string tree, tree_note;      // what grep searches, and what it is
  std::string certgate;             // beside this binary; may not exist
  sandbox::UniqueFd record_log;     // O_APPEND
};

}  // namespace certgate::bench
