// Channel: the one connection between a supervisor and its authority (SOCK_SEQPACKET, CBOR arrays).
//
//   authority → supervisor, first:  [1, run, token chain, public key (32 bytes), next seq]
//                                    + fds: segment (O_APPEND), label table, label names
//                                    (read-only), reader table, epoch (read-only), the operator
//                                    line (operator_line.h), then the slot
//                                    of each token (token_slot.h)
//   supervisor → authority:         [2, fsid, ino, btime_ns, label text]   store: file label joins
//   this authority → supervisor:         [3, "" or error text, code]             answer to 2
// EOF on either side: the other one is gone. The supervisor then ends the agent (I7).
#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "kernel/call.h"
#include "kernel/label.h"
#include "kernel/result.h"
#include "sandbox/fd.h"

namespace certgate::supervisor {

// What the authority gives a supervisor before the agent starts.
struct Grant {
  std::string run;  // id
  std::string token_chain;
  std::array<uint8_t, 32> public_key{};
  uint64_t next_seq = 1;
  sandbox::UniqueFd segment;      // append-only log segment of this run
  sandbox::UniqueFd blobs;        // see blob_file.h
  sandbox::UniqueFd label_table;  // see label_view.h
  sandbox::UniqueFd label_names;
  sandbox::UniqueFd readers;  // see reader_table.h
  sandbox::UniqueFd epoch;    // see token_ledger.h
  sandbox::UniqueFd line;     // see operator_line.h
  std::vector<sandbox::UniqueFd> token_slots;
};

Result<Grant> receive_grant(int channel);
Status send_grant(int channel, const Grant& grant);  // authority side

struct JoinRequest {
  kernel::FileIdentity file;
  kernel::Label label;
};
Result<JoinRequest> receive_join(int channel);  // authority side; error.code 0 + "closed" at EOF
Status send_join_reply(int channel, const Status& joined);

// Supervisor side; thread-safe.
class Channel {
 public:
  explicit Channel(sandbox::UniqueFd fd) : fd_(std::move(fd)) {}
  int fd() const { return fd_.get(); }
  // Joins `label` into the stored label of `file`; on return it is visible to every supervisor, and
  // every agent that may be reading the file has it. Code EBUSY: one cannot; nothing has changed.
  Status join_file(const kernel::FileIdentity& file, const kernel::Label& label);

 private:
  sandbox::UniqueFd fd_;
  std::mutex mutex_;  // one request outstanding at a time
};

}  // namespace certgate::supervisor
