// The text of auditd's log, for ausearch and what else reads it.
#include <arpa/inet.h>
#include <seccomp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <ostream>

#include "agentd/export/exporter.h"

namespace certgate::agentd {
namespace {

using kernel::Record;
using kernel::RecordKind;
using kernel::Verb;

constexpr int64_t kMillisecond = 1'000'000;
constexpr const char* kArch = "c000003e";  // x86_64

std::string hex(const void* data, size_t size) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (size_t i = 0; i < size; ++i) {
    const uint8_t byte = static_cast<const uint8_t*>(data)[i];
    out += kDigits[byte >> 4];
    out += kDigits[byte & 15];
  }
  return out;
}

// As the kernel writes untrusted strings: in quotes, or in hex when one byte is not plain.
std::string untrusted(const std::string& text) {
  for (const char c : text) {
    if (c == '"' || c < 0x21 || c > 0x7e) return hex(text.data(), text.size());
  }
  return '"' + text + '"';
}

class Auditd : public Exporter {
 public:
  Auditd(std::string, std::ostream& out) : out_(out) {}
  void add(const ExportItem& item) override {
    const Record& r = item.record;
    if (r.kind != RecordKind::kCertificate && r.kind != RecordKind::kRefusal) return;
    if (r.verb == 0) return;
    char head[80];
    std::snprintf(head, sizeof head,
                  "msg=audit(%lld.%03d:%llu):", static_cast<long long>(r.wall_ns / 1'000'000'000),
                  static_cast<int>(r.wall_ns / kMillisecond % 1000),
                  static_cast<unsigned long long>(item.pos + 1));
    const bool failed = item.error != 0;
    const int number = ::seccomp_syscall_resolve_name(r.call.c_str());
    out_ << "type=SYSCALL " << head << " arch=" << kArch
         << " syscall=" << (number < 0 ? -1 : number) << " success=" << (failed ? "no" : "yes")
         << " exit=" << (failed ? "-" + std::to_string(item.error) : "0")
         << " a0=0 a1=0 a2=0 a3=0 items=" << (is_verb(r, Verb::kConnect) ? 0 : 1)
         << " ppid=0 pid=" << r.pid
         << " auid=4294967295 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=(none) "
            "ses=4294967295 comm="
         << untrusted(r.argv.empty() ? "agent" : r.argv[0].substr(0, 15))
         << " exe=" << (is_verb(r, Verb::kExec) ? untrusted(r.object) : "\"\"")
         << " key=" << untrusted("certgate-" + r.run) << '\n';
    if (is_verb(r, Verb::kExec)) add_arguments(head, r);
    if (is_verb(r, Verb::kConnect)) {
      add_address(head, r);
    } else {
      out_ << "type=PATH " << head << " item=0 name=" << untrusted(r.object) << " inode=" << r.ino
           << " nametype=" << (is_verb(r, Verb::kWrite) ? "CREATE" : "NORMAL") << '\n';
    }
  }

 private:
  void add_arguments(const char* head, const Record& r) {
    out_ << "type=EXECVE " << head << " argc=" << r.argv.size();
    for (size_t i = 0; i < r.argv.size(); ++i) out_ << " a" << i << '=' << untrusted(r.argv[i]);
    out_ << '\n';
  }
  // A name has no address here: it is a unix-like address of that name, so that a search still
  // finds it.
  void add_address(const char* head, const Record& r) {
    const Endpoint end = endpoint_of(r.object);
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(static_cast<uint16_t>(end.port));
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = v4.sin_port;
    std::string address;
    if (::inet_pton(AF_INET, end.host.c_str(), &v4.sin_addr) == 1) {
      address = hex(&v4, sizeof v4);
    } else if (::inet_pton(AF_INET6, end.host.c_str(), &v6.sin6_addr) == 1) {
      address = hex(&v6, sizeof v6);
    } else {
      const sa_family_t local = AF_UNIX;
      const std::string name = r.object.substr(0, 107);
      address = hex(&local, sizeof local) + hex(name.data(), name.size()) + "00";
    }
    out_ << "type=SOCKADDR " << head << " saddr=" << address << '\n';
  }
  std::ostream& out_;
};

}  // namespace

std::unique_ptr<Exporter> auditd_exporter(const std::string& log, std::ostream& out) {
  return std::make_unique<Auditd>(log, out);
}

}  // namespace certgate::agentd
