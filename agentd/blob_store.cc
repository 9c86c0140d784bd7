#include "agentd/blob_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>

#include "agentd/state_dir.h"
#include "supervisor/frame.h"
#include "sandbox/fd.h"
#include "supervisor/blob_file.h"

namespace certgate::agentd {
namespace {

using kernel::Record;
using supervisor::Blob;

constexpr size_t kMaxBlobFile = 1u << 30;

bool is_run_id(const std::string& run) {
  return !run.empty() && run.size() <= 32 &&
         run.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789") == std::string::npos;
}

// Of a run that lives, or of one that has ended. The record's text is not trusted to be a name.
std::vector<std::string> paths_of(const std::string& run) {
  if (!is_run_id(run)) return {};
  return {"segments/" + run + ".blobs", "blobs/" + run};
}

std::string* place_of(Record& record, const std::string& name) {
  if (name == "object") return &record.object;
  if (name == "asked") return &record.asked;
  if (!name.starts_with("argv[")) return nullptr;
  size_t index = 0;
  const char* const at = name.data() + sizeof("argv[") - 1;
  std::from_chars(at, name.data() + name.size(), index);
  if (index >= kernel::kMaxRecordArgs) {  // those beyond: one more, joined
    record.argv.resize(kernel::kMaxRecordArgs + 1);
    return &record.argv.back();
  }
  return index < record.argv.size() ? &record.argv[index] : nullptr;
}

Status overwrite(int fd, const Blob& blob, const std::string& path) {
  const std::vector<uint8_t> zeros(blob.size, 0);
  std::vector<uint8_t> frame;
  if (!supervisor::append_frame(zeros.data(), zeros.size(), frame)) return fail(path + ": no blob");
  for (size_t done = 0; done < frame.size();) {
    const ssize_t n = ::pwrite(fd, frame.data() + done, frame.size() - done,
                               static_cast<off_t>(blob.offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return disk_error(path, n < 0 ? errno : EIO);
    done += static_cast<size_t>(n);
  }
  return ok();
}

}  // namespace

Status BlobStore::load(const std::string& run) {
  if (run == run_) return ok();
  loaded_.clear();
  run_ = run;
  for (const std::string& path : paths_of(run)) {
    const Result<std::string> bytes = read_file(dir_, path, kMaxBlobFile);
    if (!bytes && bytes.error().code == ENOENT) continue;
    if (!bytes) return bytes.error();
    for (const Blob& blob : supervisor::read_blobs(*bytes)) {
      if (!blob.erased) loaded_.emplace(blob.commitment, blob.value);
    }
  }
  return ok();
}

Result<std::vector<KeptOut>> BlobStore::values(const Record& record) {
  std::vector<KeptOut> out;
  if (record.blobs.empty()) return out;
  CG_CHECK(load(record.run));
  for (const std::string& entry : record.blobs) {
    kernel::Digest commitment;
    std::string name;
    if (!supervisor::split_entry(entry, commitment, name)) continue;
    const auto found = loaded_.find(commitment);
    const bool more = !out.empty() && out.back().name == name;  // a long value's next part
    if (!more) out.push_back({name, std::string()});
    std::optional<std::string>& value = out.back().value;
    if (found == loaded_.end()) {
      value.reset();
    } else if (value) {
      *value += found->second;
    }
  }
  return out;
}

Result<Record> BlobStore::shown(Record record) {
  CG_TRY(const std::vector<KeptOut> all, values(record));
  for (const KeptOut& kept : all) {
    if (std::string* place = place_of(record, kept.name)) *place = kept.value.value_or(kErasedText);
  }
  return record;
}

Result<size_t> BlobStore::erase(const Record& record, const std::string& name) {
  std::map<kernel::Digest, bool> wanted;
  for (const std::string& entry : record.blobs) {
    kernel::Digest commitment;
    std::string its;
    if (supervisor::split_entry(entry, commitment, its) && (name.empty() || its == name))
      wanted.emplace(commitment, true);
  }
  size_t erased = 0;
  for (const std::string& path : paths_of(record.run)) {
    const sandbox::UniqueFd fd(::openat(dir_, path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC));
    if (!fd && errno == ENOENT) continue;
    if (!fd) return disk_error(path, errno);
    CG_TRY(const std::string bytes, read_file(dir_, path, kMaxBlobFile));
    for (const Blob& blob : supervisor::read_blobs(bytes)) {
      if (!wanted.contains(blob.commitment)) continue;
      CG_CHECK(overwrite(fd.get(), blob, path));
      ++erased;
    }
    if (::fdatasync(fd.get()) != 0) return sync_error(path, errno);
  }
  run_.clear();
  loaded_.clear();
  return erased;
}

Status BlobStore::forget(const std::string& run) {
  if (is_run_id(run)) CG_CHECK(remove_entry(dir_, "blobs/" + run, false));
  return ok();
}

}  // namespace certgate::agentd
