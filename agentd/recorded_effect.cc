// The exact effect of a certificate, from its record (kernel/certificate.h says what `detail` is).
#include "agentd/recheck.h"
#include "kernel/cbor.h"
#include "supervisor/report.h"

namespace certgate::agentd {
namespace {

using kernel::CborReader;
using kernel::Record;

constexpr size_t kMaxPath = 8192;
constexpr size_t kMaxHow = 65536;  // not an open: both paths, attributes
constexpr size_t kMaxImages = 16;

Status items(CborReader& in, size_t wanted) {
  CG_TRY(const size_t is, in.array(wanted));
  return is == wanted ? ok() : Status(fail("its detail has another form"));
}

template <typename Array>
Status octets(CborReader& in, Array& to) {
  CG_TRY(const std::string bytes, in.bytes(to.size()));
  if (bytes.size() != to.size()) return fail("its detail has a part of another length");
  std::copy(bytes.begin(), bytes.end(), to.begin());
  return ok();
}

template <typename T>
Status choice(CborReader& in, T last, T& to) {
  CG_TRY(const uint64_t value, in.unsigned_int());
  if (value > static_cast<uint64_t>(last)) return fail("its detail has a value that is not known");
  to = static_cast<T>(value);
  return ok();
}

Result<kernel::Effects> open_effect(const Record& record, CborReader& in) {
  kernel::OpenEffect out;
  out.path = record.object;
  CG_CHECK(items(in, 7));
  CG_TRY(out.file.fsid, in.unsigned_int());
  out.file.ino = record.ino;
  CG_TRY(out.file.btime_ns, in.integer());
  CG_CHECK(choice(in, kernel::FileKind::kOther, out.kind));
  bool* const bits[] = {&out.read,   &out.write,    &out.create,
                        &out.inside, &out.replaces, &out.other_names};
  CG_TRY(const uint64_t set, in.unsigned_int());
  if (set >> std::size(bits) != 0) return fail("its detail has a bit that is not known");
  for (size_t i = 0; i < std::size(bits); ++i) *bits[i] = (set >> i & 1) != 0;
  CG_TRY(out.flags, in.unsigned_int());
  CG_TRY(const uint64_t mode, in.unsigned_int());
  if (mode > UINT32_MAX) return fail("its detail has a mode that is none");
  out.mode = static_cast<uint32_t>(mode);
  CG_TRY(out.how, in.bytes(kMaxHow));
  return kernel::Effects(std::move(out));
}

// The environment is there as its digest only.
Result<kernel::Effects> exec_effect(const Record& record, CborReader& in) {
  kernel::ExecEffect out;
  out.argv = record.argv;
  out.named = record.asked.empty() ? record.object : record.asked;
  kernel::ExecImage first;
  first.path = record.object;
  first.file.ino = record.ino;
  if (record.sha256.size() != first.sha256.size()) return fail("it has no digest of its file");
  std::copy(record.sha256.begin(), record.sha256.end(), first.sha256.begin());
  CG_CHECK(items(in, 6));
  CG_TRY(first.file.fsid, in.unsigned_int());
  CG_TRY(first.file.btime_ns, in.integer());
  CG_TRY(first.inside, in.boolean());
  out.images.push_back(std::move(first));
  CG_TRY(const size_t more, in.array(kMaxImages));
  for (size_t i = 0; i < more; ++i) {
    kernel::ExecImage image;
    CG_CHECK(items(in, 6));
    CG_TRY(image.path, in.bytes(kMaxPath));
    CG_TRY(image.file.fsid, in.unsigned_int());
    CG_TRY(image.file.ino, in.unsigned_int());
    CG_TRY(image.file.btime_ns, in.integer());
    CG_CHECK(octets(in, image.sha256));
    CG_TRY(image.inside, in.boolean());
    out.images.push_back(std::move(image));
  }
  kernel::Digest environment{};
  CG_CHECK(octets(in, environment));
  CG_TRY(out.cwd, in.bytes(kMaxPath));
  return kernel::Effects(std::move(out));
}

Result<kernel::Effects> connect_effect(CborReader& in) {
  kernel::ConnectEffect out;
  CG_CHECK(items(in, 6));
  CG_CHECK(choice(in, kernel::Transport::kUnix, out.transport));
  CG_TRY(out.host, in.bytes(kMaxPath));
  CG_CHECK(octets(in, out.address));
  CG_TRY(const uint64_t port, in.unsigned_int());
  if (port > UINT16_MAX) return fail("its detail has a port that is none");
  out.port = static_cast<uint16_t>(port);
  CG_TRY(out.path, in.bytes(kMaxPath));
  CG_TRY(out.inside, in.boolean());
  return kernel::Effects(std::move(out));
}

Result<kernel::Effects> decode(const Record& record, CborReader& in) {
  const auto verb = static_cast<kernel::Verb>(record.verb - 1);
  if (verb == kernel::Verb::kExec) return exec_effect(record, in);
  if (verb == kernel::Verb::kConnect) return connect_effect(in);
  return open_effect(record, in);
}

}  // namespace

Result<kernel::Effects> recorded_effect(const Record& record) {
  if (record.verb == 0 || record.verb > kernel::kVerbs) return fail("it has no verb");
  if (record.detail.empty())
    return fail("it has no detail: an earlier version made it, or it was too long to be kept");
  const auto* data = reinterpret_cast<const uint8_t*>(record.detail.data());  // NOLINT: octets
  CborReader in(data, record.detail.size());
  CG_TRY(kernel::Effects out, decode(record, in));
  if (!in.done()) return fail("bytes after the end of its detail");
  if (supervisor::object_text(out) != record.object)
    return fail("its detail is of another object, " + supervisor::object_text(out));
  const auto* open = std::get_if<kernel::OpenEffect>(&out);
  if (open != nullptr && open->write != (record.verb - 1 == static_cast<int>(kernel::Verb::kWrite)))
    return fail("its detail is of another verb");
  return out;
}

}  // namespace certgate::agentd
