// Perfetto's binary trace: TracePacket with TrackDescriptor and TrackEvent, as protobuf.
#include <map>
#include <ostream>

#include "agentd/audit_view.h"
#include "agentd/cli/verbs.h"
#include "agentd/export/exporter.h"

namespace certgate::agentd {
namespace {

using kernel::Record;
using kernel::RecordKind;
using kernel::Verb;

// One protobuf message, grown field by field.
class Message {
 public:
  Message& number(unsigned field, uint64_t value) {
    varint(uint64_t{field} << 3);
    varint(value);
    return *this;
  }
  Message& fixed(unsigned field, uint64_t value) {
    varint(uint64_t{field} << 3 | 1);
    for (int i = 0; i < 8; ++i) bytes_ += static_cast<char>(value >> (8 * i));
    return *this;
  }
  Message& text(unsigned field, const std::string& value) {
    varint(uint64_t{field} << 3 | 2);
    varint(value.size());
    bytes_ += value;
    return *this;
  }
  Message& message(unsigned field, const Message& value) { return text(field, value.bytes_); }
  const std::string& bytes() const { return bytes_; }

 private:
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_ += static_cast<char>(value | 0x80);
    bytes_ += static_cast<char>(value);
  }
  std::string bytes_;
};

// Field numbers of perfetto/trace/*.proto.
constexpr unsigned kPacket = 1, kTimestamp = 8, kSequence = 10, kTrackEvent = 11,
                   kTrackDescriptor = 60;
constexpr unsigned kUuid = 1, kName = 2, kParent = 5;
constexpr unsigned kAnnotation = 4, kType = 9, kTrack = 11, kCategory = 22, kEventName = 23,
                   kFlow = 47;
constexpr unsigned kAnnotationName = 10, kAnnotationText = 6;
constexpr uint64_t kSliceBegin = 1, kSliceEnd = 2, kInstant = 3;

class Perfetto : public Exporter {
 public:
  Perfetto(std::string, std::ostream& out) : out_(out) {}
  void add(const ExportItem& item) override {
    const Record& r = item.record;
    if (r.kind == RecordKind::kOutcome) return;
    const uint64_t agent = track("agent " + r.run, 0);
    if (r.kind == RecordKind::kStart) return event(agent, kSliceBegin, r, item, r.object);
    if (r.kind == RecordKind::kStop || r.kind == RecordKind::kGap)
      return event(agent, kSliceEnd, r, item, "");
    const uint64_t at =
        r.pid == 0 ? agent : track("pid " + std::to_string(r.pid) + " of " + r.run, agent);
    std::string what = r.call.empty() ? record_kind_text(r.kind) : r.call + ' ' + r.object;
    if (r.kind == RecordKind::kExit) what += ", " + end_text(process_end(r));
    const char* const verdict = r.kind == RecordKind::kRefusal ? "refused "
                                : is_observed(r)               ? "would be refused "
                                                               : "";
    event(at, kInstant, r, item, verdict + what);
  }

 private:
  uint64_t track(const std::string& name, uint64_t parent) {
    const auto [found, made] = tracks_.try_emplace(name, tracks_.size() + 1);
    if (!made) return found->second;
    Message descriptor, packet;
    descriptor.number(kUuid, found->second).text(kName, cli::escape(name));
    if (parent != 0) descriptor.number(kParent, parent);
    put(packet.message(kTrackDescriptor, descriptor));
    return found->second;
  }
  void event(uint64_t at, uint64_t type, const Record& r, const ExportItem& item,
             const std::string& name) {
    Message event, packet;
    auto annotate = [&](const char* key, const std::string& value) {
      if (value.empty()) return;
      Message annotation;
      annotation.text(kAnnotationName, key).text(kAnnotationText, cli::escape(value));
      event.message(kAnnotation, annotation);
    };
    annotate("id", r.id());
    annotate("rule", r.rule);
    annotate("reason", r.reason);
    annotate("origins", r.origins);
    annotate("raised", r.raised);
    event.number(kType, type).number(kTrack, at);
    event.text(kCategory, r.kind == RecordKind::kRefusal ? "refusal" : record_kind_text(r.kind));
    if (!name.empty()) event.text(kEventName, cli::escape(name));
    // The arrows: from a write to each read of what it wrote. The flow's id is the write's
    // position.
    if (is_verb(r, Verb::kWrite)) event.fixed(kFlow, item.pos + 1);
    if (item.source) event.fixed(kFlow, *item.source + 1);
    packet.number(kTimestamp, static_cast<uint64_t>(r.wall_ns));
    put(packet.number(kSequence, 1).message(kTrackEvent, event));
  }
  void put(const Message& packet) {
    Message trace;
    out_ << trace.message(kPacket, packet).bytes();
  }
  std::ostream& out_;
  std::map<std::string, uint64_t> tracks_;
};

}  // namespace

std::unique_ptr<Exporter> perfetto_exporter(const std::string& log, std::ostream& out) {
  return std::make_unique<Perfetto>(log, out);
}

}  // namespace certgate::agentd
