// Call: one attempted effect, as the supervisor decoded it, in values only.
//
// Every pointer the agent passed has been copied, every object pinned; what is here is what was
// pinned. Vocabulary header: plain data, no behaviour, may be included by sandbox/.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace certgate::kernel {

enum class Verb : uint8_t { kExec, kRead, kWrite, kConnect };
inline constexpr size_t kVerbs = 4;

using Digest = std::array<uint8_t, 32>;  // SHA-256

// Names a file version across runs and reboots. btime tells a reused inode number from the old one.
struct FileIdentity {
  uint64_t fsid = 0;  // file system id (statfs f_fsid, or the device number where that is 0)
  uint64_t ino = 0;
  int64_t btime_ns = 0;  // birth time, 0 where the file system has none
  auto operator<=>(const FileIdentity&) const = default;
};

enum class FileKind : uint8_t { kRegular, kDirectory, kFifo, kSocket, kDevice, kPipe, kOther };

// An open. `path` is the object as resolved inside the sandbox (bytes), `asked` as the agent wrote
// it.
struct OpenEffect {
  std::string path;
  FileKind kind = FileKind::kRegular;
  FileIdentity file;  // for a creation: the parent directory
  bool read = false;
  bool write = false;     // any of O_WRONLY, O_RDWR, O_TRUNC, O_CREAT of a new file
  bool create = false;    // the last component does not exist and will be made
  bool inside = false;    // on a file system that lives and dies with the sandbox (/tmp, home, …)
  bool replaces = false;  // another thing has this name afterwards: so has every path below it
  bool other_names = false;  // an existing file that has more names than this one
  uint64_t flags = 0;        // open flags as they will be performed
  uint32_t mode = 0;         // creation mode after umask, 0 when nothing is created
  std::string how;           // not an open: the call's name; after NULs what else it does
};

// One file of an exec's chain: the named file, then script interpreters, then PT_INTERP.
struct ExecImage {
  std::string path;  // as resolved inside the sandbox
  FileIdentity file;
  Digest sha256{};
  bool inside = false;  // as for OpenEffect
  bool operator==(const ExecImage&) const = default;
};

struct ExecEffect {
  std::vector<ExecImage> images;  // images[0] is the file that was named (a script or a binary)
  std::vector<std::string> argv;  // as passed by the caller (before the kernel's script rewriting)
  std::vector<std::string> env;
  std::string cwd;  // resolved inside the sandbox
  // What only tools ask about (tool.h); the exec proof holds them, the digest leaves them out.
  std::string named;           // the name that was given, as AT_EXECFN will say it
  std::vector<int> inherited;  // descriptors above 2 that would stay open
};

// An argument that the caller says is bytes of a message of the user (State::messages).
struct ArgumentSource {
  uint32_t argument = 0, message = 0;
  uint64_t start = 0, end = 0;
  bool operator==(const ArgumentSource&) const = default;
};

enum class Transport : uint8_t { kTcp, kUdp, kUnix };

struct ConnectEffect {
  Transport transport = Transport::kTcp;
  std::string host;                   // name bound by our resolver, or the address as text
  std::array<uint8_t, 16> address{};  // IPv6, or IPv4-mapped; zero for unix
  uint16_t port = 0;
  std::string path;     // unix: resolved inside; abstract names start with '@'
  bool inside = false;  // the peer can only be in the same sandbox
};

}  // namespace certgate::kernel
