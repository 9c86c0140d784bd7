#include "agentd/signing_key.h"

#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "agentd/state_dir.h"
#include "sandbox/fd.h"

namespace certgate::agentd {
namespace {

using sandbox::UniqueFd;

constexpr size_t kMaxKeyFileBytes = 4096;
constexpr char kPrivateName[] = "key";
constexpr char kNewPrivateName[] = "key.new";
constexpr char kPublicName[] = "key.pub";

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using Bio = std::unique_ptr<BIO, FreeBio>;

// Bytes of the private key; wiped when they go.
struct Secret {
  std::string bytes;
  ~Secret() { OPENSSL_cleanse(bytes.data(), bytes.size()); }
};

// An encrypted key would otherwise ask for its password on the terminal.
int no_password(char*, int, int, void*) { return 0; }

Result<PublicKey> raw_public(EVP_PKEY* key) {
  PublicKey raw;
  size_t size = raw.size();
  if (EVP_PKEY_get_id(key) != EVP_PKEY_ED25519 ||
      EVP_PKEY_get_raw_public_key(key, raw.data(), &size) != 1 || size != raw.size()) {
    return fail("key: not an Ed25519 key");
  }
  return raw;
}

Status read_private(int dir_fd, Secret& secret) {
  const UniqueFd fd(::openat(dir_fd, kPrivateName, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return disk_error("key", errno);
  struct stat st;
  if (::fstat(fd.get(), &st) != 0) return disk_error("key", errno);
  if (!S_ISREG(st.st_mode)) return fail("key: not a regular file");
  if (st.st_uid != ::geteuid()) {
    return fail("key: it belongs to uid " + std::to_string(st.st_uid) + ", not to us", EPERM);
  }
  if ((st.st_mode & 07777) != 0600) {
    return fail(
        "key: its mode is not 0600, so others may have read it; move the state directory "
        "away and let certgate make a new one",
        EPERM);
  }
  if (st.st_size <= 0 || static_cast<size_t>(st.st_size) > kMaxKeyFileBytes) {
    return fail("key: damaged (its size cannot be); restore the state directory from a copy");
  }
  secret.bytes.resize(static_cast<size_t>(st.st_size));
  const ssize_t n = ::pread(fd.get(), secret.bytes.data(), secret.bytes.size(), 0);
  if (n < 0) return disk_error("key", errno);
  secret.bytes.resize(static_cast<size_t>(n));
  return ok();
}

}  // namespace

void SigningKey::Free::operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }

Result<std::string> random_base32(size_t length) {
  static constexpr char kAlphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
  std::string text(length, '\0');
  if (RAND_bytes(reinterpret_cast<uint8_t*>(text.data()), static_cast<int>(length)) != 1) {
    return fail("random: the generator gave nothing");
  }
  for (char& c : text) c = kAlphabet[static_cast<uint8_t>(c) & 31];
  return text;
}

Result<SigningKey> SigningKey::generate() {
  CG_TRY(const std::string random, random_base32(8));
  Handle key(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  if (!key) return fail("key: OpenSSL could not make an Ed25519 key");
  CG_TRY(const PublicKey raw, raw_public(key.get()));
  return SigningKey(std::move(key), VerifierKey{"certgate.local/" + random, raw});
}

Result<SigningKey> SigningKey::load(int dir_fd) {
  Secret secret;
  CG_CHECK(read_private(dir_fd, secret));
  const Bio bio(BIO_new_mem_buf(secret.bytes.data(), static_cast<int>(secret.bytes.size())));
  if (!bio) return fail("key: out of memory");
  Handle key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr));
  if (!key) return fail("key: not a private key in PEM; restore the state directory from a copy");
  CG_TRY(const PublicKey raw, raw_public(key.get()));
  CG_TRY(std::string line, read_file(dir_fd, kPublicName, kMaxKeyFileBytes));
  if (line.empty() || line.back() != '\n') return fail("key.pub: not one line");
  line.pop_back();
  Result<VerifierKey> verifier = VerifierKey::parse(line);
  if (!verifier) return fail("key.pub: " + verifier.error().what);
  if (verifier->key != raw) return fail("key.pub: not the public half of key");
  return SigningKey(std::move(key), std::move(*verifier));
}

Status SigningKey::save_public(int dir_fd) const {
  const std::string line = verifier_.text() + '\n';
  DurableWriter writer(dir_fd);
  CG_CHECK(writer.put(kPublicName, line.data(), line.size()));
  return writer.flush();
}

Status SigningKey::save_private(int dir_fd) const {
  const Bio bio(BIO_new(BIO_s_secmem()));
  if (!bio || PEM_write_bio_PKCS8PrivateKey(bio.get(), key_.get(), nullptr, nullptr, 0, nullptr,
                                            nullptr) != 1) {
    return fail("key: OpenSSL could not write it");
  }
  char* pem = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &pem);
  // Whole or not at all: written aside, then linked, which fails where a key is already.
  CG_CHECK(remove_entry(dir_fd, kNewPrivateName, false));
  const UniqueFd fd(::openat(dir_fd, kNewPrivateName,
                             O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd || ::fchmod(fd.get(), 0600) != 0) return disk_error("key", errno);
  CG_CHECK(write_all(fd.get(), pem, static_cast<size_t>(size), "key"));
  if (::fsync(fd.get()) != 0) return disk_error("key", errno);
  if (::linkat(dir_fd, kNewPrivateName, dir_fd, kPrivateName, 0) != 0)
    return disk_error("key", errno);
  CG_CHECK(remove_entry(dir_fd, kNewPrivateName, false));
  return sync_dir(dir_fd, "");
}

Result<Signature> SigningKey::sign(std::string_view message) const {
  using Context = std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)>;
  const Context context(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  Signature signature;
  size_t size = signature.size();
  if (!context || EVP_DigestSignInit(context.get(), nullptr, nullptr, nullptr, key_.get()) != 1 ||
      EVP_DigestSign(context.get(), signature.data(), &size,
                     reinterpret_cast<const uint8_t*>(message.data()), message.size()) != 1 ||
      size != signature.size()) {
    return fail("key: OpenSSL could not sign");
  }
  return signature;
}

}  // namespace certgate::agentd
