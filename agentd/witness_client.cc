#include "agentd/witness_client.h"

#include <algorithm>
#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <chrono>

#include "agentd/log_edge.h"
#include "agentd/log_snapshot.h"
#include "agentd/log_witnessed.h"
#include "agentd/state_dir.h"
#include "kernel/merkle.h"

namespace certgate::agentd {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr std::chrono::seconds kWait{20};
constexpr uint64_t kMaxLeaves = uint64_t{1} << 24;  // 512 MB of hashes

struct Url {
  std::string host, port = "80", target;
};

Result<Url> parse_url(std::string url) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) return fail("a witness's address begins with http://");
  url.erase(0, kScheme.size());
  Url out;
  const size_t slash = std::min(url.find('/'), url.size());
  out.target = url.substr(slash);
  if (out.target.ends_with('/')) out.target.pop_back();
  out.target += "/add-checkpoint";
  out.host = url.substr(0, slash);
  const size_t colon = out.host.rfind(':');
  if (colon != std::string::npos && out.host.find(']', colon) == std::string::npos) {
    out.port = out.host.substr(colon + 1);
    out.host.resize(colon);
  }
  if (out.host.starts_with('[') && out.host.ends_with(']'))
    out.host = out.host.substr(1, out.host.size() - 2);
  if (out.host.empty() || url.find_first_of(" \t\r\n") != std::string::npos)
    return fail("not an address of a witness");
  return out;
}

struct Reply {
  unsigned status = 0;
  std::string body;
};

// All of it within kWait: the stream's limit covers the calls that are asynchronous.
Result<Reply> post(const Url& url, const std::string& body) {
  asio::io_context io{1};
  tcp::resolver resolver(io);
  beast::tcp_stream stream(io);
  http::request<http::string_body> request{http::verb::post, url.target, 11};
  request.set(http::field::host, url.host);
  request.keep_alive(false);
  request.body() = body;
  request.prepare_payload();
  beast::flat_buffer buffer{65536};
  http::response_parser<http::string_body> parser;
  parser.body_limit(kMaxNoteBytes);
  error_code result = asio::error::timed_out;
  stream.expires_after(kWait);
  const auto failed = [&](error_code e) { return (result = e) ? true : false; };
  resolver.async_resolve(url.host, url.port, [&](error_code e, const auto& found) {
    if (failed(e)) return;
    stream.async_connect(found, [&](error_code e2, const auto&) {
      if (failed(e2)) return;
      http::async_write(stream, request, [&](error_code e3, size_t) {
        if (failed(e3)) return;
        http::async_read(stream, buffer, parser, [&](error_code e4, size_t) { failed(e4); });
      });
    });
  });
  io.run_for(kWait + std::chrono::seconds(5));
  if (result) return fail("the witness at " + url.host + ":" + url.port + ": " + result.message());
  return Reply{parser.get().result_int(), parser.get().body()};
}

Result<std::vector<kernel::Digest>> leaves_of(const LogSnapshot& log, uint64_t size) {
  if (size > kMaxLeaves) return fail("the log is too long to prove in memory (16 million records)");
  std::vector<kernel::Digest> out;
  out.reserve(size);
  const LevelShape shape = level_shape(0, size);
  for (uint64_t i = 0; i < shape.full + (shape.width > 0 ? 1 : 0); ++i) {
    const size_t width = i < shape.full ? kTileWidth : shape.width;
    CG_TRY(const std::string bytes, log.tile(0, i, width));
    CG_TRY(const std::vector<kernel::Digest> hashes, parse_tile(bytes, width));
    out.insert(out.end(), hashes.begin(), hashes.end());
  }
  return out;
}

// The cosignatures of this very checkpoint stay, the witness's own before it goes. Beside it, each
// witness's last one stays when others have cosigned a later checkpoint.
Status keep(const std::string& state_dir, const CosignerKey& witness, const std::string& note,
            const std::string& line) {
  CG_TRY(const sandbox::UniqueFd dir, open_state_dir(state_dir));
  CG_TRY(const DirLock lock, DirLock::exclusive(dir.get()));
  const Result<std::string> before = read_file(dir.get(), kCosignedPath, kMaxNoteBytes);
  std::string out = note;
  const std::string own = line.substr(0, line.rfind(' ') + 1);
  if (before && before->starts_with(note)) {
    std::string_view rest = std::string_view(*before).substr(note.size());
    while (!rest.empty()) {
      const size_t end = std::min(rest.find('\n'), rest.size() - 1) + 1;
      if (!rest.starts_with(own)) out += rest.substr(0, end);
      rest.remove_prefix(end);
    }
  }
  out += line;
  if (out.size() > kMaxNoteBytes) return fail("too many cosignatures of one checkpoint");
  DurableWriter writer(dir.get());
  CG_CHECK(writer.put(kCosignedPath, out.data(), out.size()));
  const std::string alone = note + line;
  CG_CHECK(writer.put(cosignature_path(witness.id()), alone.data(), alone.size()));
  return writer.flush();
}

}  // namespace

Result<Cosigned> ask_witness(const std::string& state_dir, const WitnessAt& witness) {
  CG_TRY(const Url url, parse_url(witness.url));
  CG_TRY(const LogSnapshot log, LogSnapshot::open(state_dir));
  CG_TRY(const Checkpoint ours, log.checkpoint());
  AddCheckpoint request;
  request.note = *log.published();
  CG_TRY(Reply reply, post(url, add_checkpoint_body(request)));
  if (reply.status == 409) {  // it knows us: from there on
    if (!reply.body.ends_with('\n')) return fail("the witness's answer 409 is not a size");
    const char* const end = reply.body.data() + reply.body.size() - 1;
    const auto [at, error] = std::from_chars(reply.body.data(), end, request.old_size);
    if (error != std::errc() || at != end) return fail("the witness's answer 409 is not a size");
    if (request.old_size > ours.size) {
      return fail("the witness has signed " + std::to_string(request.old_size) +
                  " records of this log, which has only " + std::to_string(ours.size) +
                  ": it was cut, or set back");
    }
    if (request.old_size > 0 && request.old_size < ours.size) {
      CG_TRY(const std::vector<kernel::Digest> leaves, leaves_of(log, ours.size));
      request.proof = kernel::consistency_proof(request.old_size, leaves);
    }
    CG_TRY(reply, post(url, add_checkpoint_body(request)));
  }
  if (reply.status != 200) {
    const bool forked = reply.status == 409 || reply.status == 422;
    return fail("the witness refuses: " + std::to_string(reply.status) + ' ' +
                reply.body.substr(0, 200) +
                (forked ? "(this log is not a continuation of what it has signed)" : ""));
  }
  CG_TRY(const uint64_t time, check_cosignature(witness.key, ours.text(), reply.body));
  CG_CHECK(keep(state_dir, witness.key, request.note, reply.body));
  return Cosigned{ours.size, time};
}

}  // namespace certgate::agentd
