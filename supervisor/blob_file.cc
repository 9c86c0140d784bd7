#include "supervisor/blob_file.h"

#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "supervisor/frame.h"
#include "kernel/merkle.h"

namespace certgate::supervisor {
namespace {

uint64_t size_of(int fd) {
  struct stat s {};
  return ::fstat(fd, &s) == 0 ? static_cast<uint64_t>(s.st_size) : 0;
}

}  // namespace

BlobFile::BlobFile(sandbox::UniqueFd fd)
    : fd_(std::move(fd)), size_(size_of(fd_.get())), room_(fd_.get(), size_) {}

Result<std::vector<std::string>> BlobFile::add(const std::string& name, const std::string& value) {
  const bool shared = name.starts_with("env");
  const kernel::Digest of = shared ? kernel::sha256(value.data(), value.size()) : kernel::Digest{};
  if (const auto found = last_.find(name); found != last_.end() && found->second.of == of)
    return found->second.entries;
  std::vector<std::string> entries;
  frame_.clear();
  for (size_t at = 0; at == 0 || at < value.size(); at += kMaxBlobValue) {
    std::string blob(kSaltBytes, '\0');
    if (::getrandom(blob.data(), blob.size(), 0) != static_cast<ssize_t>(blob.size()))
      return fail_errno("salt for a blob", errno);
    blob.append(value, at, kMaxBlobValue);
    if (!supervisor::append_frame(blob.data(), blob.size(), frame_))
      return fail("a blob is too long for a frame", EMSGSIZE);
    const kernel::Digest commitment = kernel::sha256(blob.data(), blob.size());
    entries.emplace_back(commitment.begin(), commitment.end());
    entries.back() += name;
  }
  const ssize_t n = ::write(fd_.get(), frame_.data(), frame_.size());
  if (n != static_cast<ssize_t>(frame_.size()))
    return fail_errno("append to the blob file (is the disk full?)", n < 0 ? errno : ENOSPC);
  size_ += frame_.size();
  if (shared) last_[name] = {of, entries};
  return entries;
}

Status BlobFile::sync() {
  if (::fdatasync(fd_.get()) != 0) return fail_errno("fdatasync of the blob file", errno);
  return ok();
}

std::vector<Blob> read_blobs(std::string_view bytes) {
  std::vector<Blob> out;
  supervisor::FrameReader reader(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  for (supervisor::Frame f = reader.next(); f.state == supervisor::Frame::kOk; f = reader.next()) {
    if (f.size < kSaltBytes) break;
    Blob& blob = out.emplace_back();
    blob.commitment = kernel::sha256(f.data, f.size);
    blob.value = {reinterpret_cast<const char*>(f.data) + kSaltBytes, f.size - kSaltBytes};
    blob.offset = f.offset;
    blob.size = f.size;
    blob.erased = std::all_of(f.data, f.data + f.size, [](uint8_t b) { return b == 0; });
  }
  return out;
}

bool split_entry(std::string_view entry, kernel::Digest& commitment, std::string& name) {
  if (entry.size() <= commitment.size()) return false;
  std::memcpy(commitment.data(), entry.data(), commitment.size());
  name = entry.substr(commitment.size());
  return true;
}

}  // namespace certgate::supervisor
