#include "agentd/authority.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <optional>
#include <utility>

#include "agentd/approval_desk.h"
#include "agentd/control.h"
#include "agentd/label_store.h"
#include "agentd/log_store.h"
#include "supervisor/recorded_policy.h"
#include "agentd/state_dir.h"
#include "agentd/token_make.h"
#include "agentd/token_store.h"
#include "supervisor/frame.h"
#include "supervisor/blob_file.h"

namespace certgate::agentd {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr auto kSealEvery = std::chrono::seconds(1);
constexpr size_t kRunIdLength = 8;
constexpr int64_t kClockSlack_ns = 1'000'000'000;

int64_t now_ns(clockid_t clock) {
  timespec t{};
  ::clock_gettime(clock, &t);
  return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

// The label store belongs to the user the agent runs as: root enters that user's directories as
// that user, so that nothing planted there can lead root elsewhere. Before any thread is started.
class AsUser {
 public:
  AsUser(uid_t uid, gid_t gid) : changed_(::geteuid() == 0 && uid != 0) {
    good_ = !changed_ || (::setegid(gid) == 0 && ::seteuid(uid) == 0);
  }
  ~AsUser() {
    // Staying another user half-way would be worse than ending here.
    if (changed_ && (::seteuid(0) != 0 || ::setegid(0) != 0)) std::abort();
  }
  AsUser(const AsUser&) = delete;
  AsUser& operator=(const AsUser&) = delete;
  explicit operator bool() const { return good_; }

 private:
  const bool changed_;
  bool good_ = false;
};

Result<LabelStore> open_labels(const AuthorityPaths& paths) {
  const AsUser user(paths.label_uid, paths.label_gid);
  if (!user) return fail_errno("open the label store as the agent's user", errno);
  return LabelStore::open(paths.label_dir);
}

// What a run and its operators say to each other.
struct Operators {
  Control control;
  sandbox::UniqueFd line;
  std::string run;
};

// The supervisor's life as the authority sees it: label joins until the channel closes, then its
// end.
class Service {
 public:
  Service(LogStore& log, LabelStore& labels, SegmentTail& tail, Operators operators, int channel,
          int pidfd)
      : log_(log),
        labels_(labels),
        tail_(tail),
        channel_(channel),
        channel_wait_(io_, ::fcntl(channel, F_DUPFD_CLOEXEC, 0)),
        ended_(io_, ::fcntl(pidfd, F_DUPFD_CLOEXEC, 0)),
        timer_(io_),
        operators_(std::move(operators)),
        desk_(operators_.run, log, operators_.line.get()) {}

  Status run() {
    wait_channel();
    wait_timer();
    desk_.open_to(operators_.control);
    desk_.serve(io_, [this](const Error& error) { stop(error); });
    operators_.control.serve(io_);
    ended_.async_wait(asio::posix::stream_descriptor::wait_read, [this](error_code e) {
      if (!e) stop({});
    });
    io_.run();
    return result_ ? Status(*result_) : ok();
  }

 private:
  void stop(std::optional<Error> error) {
    if (error && !result_) result_ = std::move(error);
    io_.stop();
  }

  void wait_channel() {
    channel_wait_.async_wait(asio::posix::stream_descriptor::wait_read, [this](error_code e) {
      if (e) return;
      auto request = supervisor::receive_join(channel_);
      if (!request) {
        // Closed: the supervisor is ending, its pidfd will say so. Anything else is not our
        // supervisor's voice.
        if (request.error().code != ECONNRESET) stop(request.error());
        return;
      }
      const Status joined = labels_.join(request->file, request->label);
      const Status sent = supervisor::send_join_reply(channel_, joined);
      if (!joined && joined.error().code != EBUSY) return stop(joined.error());
      if (sent) wait_channel();
    });
  }

  void wait_timer() {
    timer_.expires_after(kSealEvery);
    timer_.async_wait([this](error_code e) {
      if (e) return;
      // A full disk stops the agent, not the sealing: it is tried again.
      if (auto sealed = log_.seal(tail_); !sealed && !disk_full(sealed.error()))
        return stop(sealed.error());
      wait_timer();
    });
  }

  LogStore& log_;
  LabelStore& labels_;
  SegmentTail& tail_;
  const int channel_;
  asio::io_context io_{1};
  asio::posix::stream_descriptor channel_wait_, ended_;
  asio::steady_timer timer_;
  Operators operators_;
  ApprovalDesk desk_;
  std::optional<Error> result_;
};

// The command line is the operator's, and may hold what his policy keeps out.
Status keep_out(const SegmentFile& segment, const supervisor::Redaction& redaction,
                kernel::Record& record) {
  supervisor::BlobFile blobs(sandbox::UniqueFd(::fcntl(segment.blobs.get(), F_DUPFD_CLOEXEC, 0)));
  for (const supervisor::Hidden& hidden : redaction.hide(record, nullptr)) {
    CG_TRY(const std::vector<std::string> entries, blobs.add(hidden.name, hidden.value));
    record.blobs.insert(record.blobs.end(), entries.begin(), entries.end());
  }
  return ok();
}

}  // namespace

struct Chain {
  std::string lines;
  kernel::TokenChain tokens;
};

struct Authority::Impl {
  Impl(LogStore log_store, TokenStore token_store, LabelStore label_store,
       const AuthorityPaths& paths)
      : log(std::move(log_store)),
        tokens(std::move(token_store)),
        labels(std::move(label_store)),
        label_uid(paths.label_uid),
        label_gid(paths.label_gid) {}

  Result<Chain> chain_for(const std::string& run, const RunRequest& request) const;

  LogStore log;
  TokenStore tokens;
  LabelStore labels;
  std::string run_token;  // its id, whose slot goes with the run
  const uid_t label_uid;
  const gid_t label_gid;
  std::optional<SegmentTail> tail;     // of the run begun, until finish()
  std::optional<Operators> operators;  // until serve()
};

Authority::Authority(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Authority::Authority(Authority&&) noexcept = default;
Authority::~Authority() = default;

Result<Authority> Authority::open(const AuthorityPaths& paths) {
  CG_TRY(LogStore log, LogStore::open(paths.state_dir));
  CG_CHECK(log.recover());
  CG_TRY(TokenStore tokens, TokenStore::open(log.dir_fd()));
  CG_TRY(LabelStore labels, open_labels(paths));
  return Authority(
      std::make_unique<Impl>(std::move(log), std::move(tokens), std::move(labels), paths));
}

// The last token is the run's. A chain whose last holder the operator cannot sign for is handed on
// as it is, and the kernel refuses every call by it.
Result<Chain> Authority::Impl::chain_for(const std::string& run, const RunRequest& request) const {
  Chain out;
  kernel::Token token;
  CG_TRY(token.nonce, random_hex(8));
  token.holder = run;
  token.epoch = tokens.epoch();
  token.not_before_ns = now_ns(CLOCK_REALTIME) - kClockSlack_ns;
  token.expires_ns = token.not_before_ns + request.ttl_ns;
  token.policy = request.policy_digest;
  if (!request.token) {
    token.scopes = kernel::every_scope();
    token.issuer = log.key().name();
    CG_TRY(out.lines, seal_token(token, token.issuer, log.key()));
  } else {
    CG_TRY(out.tokens, kernel::verify_chain(request.token->chain, log.key().public_key()));
    out.lines = request.token->chain;
    const kernel::Token& last = out.tokens.back();
    const std::optional<HolderKey>& key = request.token->key;
    if (!key || key->holder() != last.holder) return out;
    narrow_to(last, token);
    CG_TRY(const std::string line, seal_token(token, last.holder, *key));
    out.lines += (out.lines.ends_with('\n') ? "" : "\n") + line;
  }
  CG_TRY(out.tokens, kernel::verify_chain(out.lines, log.key().public_key()));
  return out;
}

Result<Run> Authority::begin(const RunRequest& request) {
  Run run;
  CG_TRY(run.id, random_base32(kRunIdLength));
  CG_TRY(const Chain chain, impl_->chain_for(run.id, request));
  run.grant.run = run.id;
  run.grant.token_chain = chain.lines;
  run.grant.public_key = impl_->log.key().public_key();
  CG_TRY(run.grant.epoch, impl_->tokens.epoch_for_reading());
  for (const kernel::Token& token : chain.tokens) {
    const Keep keep = token.holder == run.id ? Keep::kForTheRun : Keep::kForGood;
    CG_TRY(sandbox::UniqueFd slot, impl_->tokens.slot(token, keep));
    run.grant.token_slots.push_back(std::move(slot));
    if (keep == Keep::kForTheRun) impl_->run_token = token.id;
  }

  CG_TRY(SegmentFile segment, impl_->log.create_segment(run.id));
  kernel::Record record;
  record.run = run.id;
  record.wall_ns = now_ns(CLOCK_REALTIME);
  record.boot_ns = now_ns(CLOCK_BOOTTIME);
  record.pid = static_cast<uint32_t>(::getpid());
  record.token = chain.tokens.back().id.substr(0, 16);
  record.kind = kernel::RecordKind::kStart;
  record.seq = 1;
  record.object = request.command_line;
  record.origins = request.initial_label;
  record.asked = request.workspace;
  record.argument = request.home;
  if (request.observing) record.grade = kernel::kObservedGrade;
  record.digest.assign(request.policy_digest.begin(), request.policy_digest.end());
  CG_CHECK(keep_out(segment, request.redaction, record));
  CG_CHECK(append_record(segment.append.get(), record));
  record.kind = kernel::RecordKind::kToken;
  record.blobs.clear();
  record.origins.clear();
  record.digest.clear();
  record.asked.clear();
  record.argument.clear();
  record.grade.clear();
  for (size_t i = 0, at = 0; i < chain.tokens.size(); ++i) {
    const size_t end = std::min(chain.lines.find('\n', at), chain.lines.size());
    ++record.seq;
    record.token = chain.tokens[i].id.substr(0, 16);
    record.object = chain.lines.substr(at, end - at);
    CG_CHECK(append_record(segment.append.get(), record));
    at = end + 1;
  }

  record.object.clear();
  for (kernel::Record& part : supervisor::policy_records(request.policy)) {
    ++record.seq;
    record.kind = part.kind;
    record.body = std::move(part.body);
    record.count = part.count;
    CG_CHECK(append_record(segment.append.get(), record));
  }
  record.body.clear();
  record.count = 0;
  for (const kernel::Record& given : request.given) {
    ++record.seq;
    record.kind = kernel::RecordKind::kGiven;
    record.token = chain.tokens.back().id.substr(0, 16);
    record.object = given.object;
    record.tool = given.tool;
    record.sha256 = given.sha256;
    CG_CHECK(append_record(segment.append.get(), record));
  }

  run.grant.next_seq = record.seq + 1;
  run.grant.segment = std::move(segment.append);
  int line[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line) != 0)
    return fail_errno("make the operator line", errno);
  run.grant.line.reset(line[1]);
  sandbox::UniqueFd ours(line[0]);
  CG_TRY(Control control, Control::make(impl_->log.dir_fd(), run.id));
  impl_->operators.emplace(Operators{std::move(control), std::move(ours), run.id});
  run.grant.blobs = std::move(segment.blobs);
  CG_TRY(run.grant.label_table, impl_->labels.table_for_reading());
  CG_TRY(run.grant.label_names, impl_->labels.names_for_reading());
  const AsUser user(impl_->label_uid, impl_->label_gid);
  if (!user) return fail_errno("begin a run as the agent's user", errno);
  CG_TRY(run.grant.readers, impl_->labels.begin_run(run.id));
  impl_->tail = std::move(segment.tail);
  return run;
}

Status Authority::serve(int channel, int supervisor_pidfd) {
  if (!impl_->tail || !impl_->operators) return fail("no run has begun");
  Operators operators = *std::exchange(impl_->operators, std::nullopt);
  return Service(impl_->log, impl_->labels, *impl_->tail, std::move(operators), channel,
                 supervisor_pidfd)
      .run();
}

Status Authority::finish() {
  if (!impl_->tail) return ok();
  impl_->labels.end_run();
  if (!impl_->run_token.empty()) CG_CHECK(impl_->tokens.forget(impl_->run_token));
  const Status sealed = impl_->log.finish(*impl_->tail);
  impl_->tail.reset();
  return sealed;
}

}  // namespace certgate::agentd
