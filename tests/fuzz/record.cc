// Records: canonical both ways, and a record can always be made, whatever the agent's bytes are.
#include "kernel/record.h"

#include "supervisor/frame.h"
#include "tests/fuzz/fuzz.h"

using namespace certgate;
using kernel::Record;

namespace {

void bytes_come_back(const uint8_t* data, size_t size) {
  const auto record = kernel::decode_record(data, size);
  if (!record) return;
  std::vector<uint8_t> again;
  kernel::encode_record(*record, again);
  CG_LAW(again.size() == size && std::equal(again.begin(), again.end(), data));
}

Record any_record(fuzz::Bytes in) {
  Record r;
  r.kind = static_cast<kernel::RecordKind>(1 + in.byte() % 7);
  r.verb = in.byte() % (kernel::kVerbs + 1);
  r.pid = static_cast<uint32_t>(in.number(4));
  r.error = in.byte();
  r.seq = in.number();
  r.wall_ns = static_cast<int64_t>(in.number());
  r.boot_ns = static_cast<int64_t>(in.number());
  r.ino = in.number(in.byte() % 9);
  r.ref = in.number(in.byte() % 9);
  r.count = in.number(in.byte() % 9);
  r.digest.resize(in.byte() % 2 ? 32 : in.byte() % 40, in.byte());
  r.sha256.resize(in.byte() % 2 ? 32 : in.byte() % 40, in.byte());
  for (std::string* text : {&r.run, &r.call, &r.rule, &r.reason, &r.token, &r.origins, &r.raised,
                            &r.culprit, &r.argument, &r.why, &r.grade, &r.object, &r.asked}) {
    *text = in.text();
    const uint8_t repeat = in.byte();  // beyond every limit from a small input
    if (repeat > 250) {
      const std::string once = *text;
      while (!once.empty() && text->size() < 20000) *text += once;
    }
  }
  const size_t arguments = in.byte();
  for (size_t i = 0; i < arguments; ++i) r.argv.push_back(in.text(2));
  return r;
}

void always_possible(const Record& r) {
  std::vector<uint8_t> bytes = {1, 2, 3};  // appends to what is there
  kernel::encode_record(r, bytes);
  CG_LAW(bytes.size() > 3 && bytes.size() - 3 <= kernel::kMaxRecordBytes);
  CG_LAW(bytes[0] == 1 && bytes[1] == 2 && bytes[2] == 3);
  const auto back = kernel::decode_record(bytes.data() + 3, bytes.size() - 3);
  CG_LAW(back);
  CG_LAW(back->seq == r.seq && back->wall_ns == r.wall_ns && back->error == r.error);
  CG_LAW(back->object == r.object.substr(0, kernel::kMaxRecordObjectBytes));
  CG_LAW(back->argv.size() == std::min(r.argv.size(), kernel::kMaxRecordArgs));
  bytes_come_back(bytes.data() + 3, bytes.size() - 3);

  std::vector<uint8_t> framed;
  CG_LAW(supervisor::append_frame(bytes.data() + 3, bytes.size() - 3, framed));
  supervisor::FrameReader reader(framed.data(), framed.size());
  const supervisor::Frame frame = reader.next();
  CG_LAW(frame.state == supervisor::Frame::kOk && frame.size == bytes.size() - 3);
  CG_LAW(std::equal(frame.data, frame.data + frame.size, bytes.data() + 3));
  CG_LAW(reader.next().state == supervisor::Frame::kEnd);
}

}  // namespace

FUZZ_TARGET(record) {
  bytes_come_back(data, size);
  always_possible(any_record(fuzz::Bytes(data, size)));
  return 0;
}
