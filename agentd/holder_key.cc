#include "agentd/holder_key.h"

#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "agentd/state_dir.h"
#include "kernel/token.h"
#include "sandbox/fd.h"

namespace certgate::agentd {
namespace {

using sandbox::UniqueFd;

constexpr size_t kMaxKeyFile = 4096;
constexpr std::string_view kPrefix = "ed25519:";

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using Bio = std::unique_ptr<BIO, FreeBio>;

// An encrypted key would otherwise ask for its password on the terminal.
int no_password(char*, int, int, void*) { return 0; }

enum class Privacy : uint8_t { kSecret, kPublic };

Result<std::string> read_key_file(const std::string& path, Privacy privacy) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (!fd) return fail_errno("open the key " + path, errno);
  struct stat s {};
  if (::fstat(fd.get(), &s) != 0) return fail_errno("the key " + path, errno);
  if (!S_ISREG(s.st_mode)) return fail("the key " + path + " is not a regular file");
  if (privacy == Privacy::kSecret && ((s.st_mode & 077) != 0 || s.st_uid != ::geteuid()))
    return fail("the key " + path + " must be yours alone: chown it, chmod 600");
  std::string out(kMaxKeyFile + 1, '\0');
  const ssize_t n = ::read(fd.get(), out.data(), out.size());
  if (n < 0) return fail_errno("read the key " + path, errno);
  if (static_cast<size_t>(n) > kMaxKeyFile) return fail("the key " + path + " is too long");
  out.resize(static_cast<size_t>(n));
  return out;
}

Result<std::string> holder_of_key(EVP_PKEY* key) {
  kernel::RawPublicKey raw{};
  size_t size = raw.size();
  if (key == nullptr || EVP_PKEY_get_id(key) != EVP_PKEY_ED25519 ||
      EVP_PKEY_get_raw_public_key(key, raw.data(), &size) != 1 || size != raw.size()) {
    return fail("not an Ed25519 key");
  }
  return kernel::holder_of(raw);
}

Status write_new(const std::string& path, const std::string& text, mode_t mode) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!fd) return fail_errno("make " + path, errno);
  CG_CHECK(write_all(fd.get(), text.data(), text.size(), path));
  return ::fsync(fd.get()) == 0 ? ok() : Status(fail_errno("write " + path, errno));
}

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<size_t>(size)};
}

}  // namespace

Result<HolderKey> HolderKey::from(std::shared_ptr<EVP_PKEY> key) {
  HolderKey out(std::move(key));
  CG_TRY(out.holder_, holder_of_key(out.key_.get()));
  return out;
}

Result<HolderKey> HolderKey::read(const std::string& path) {
  CG_TRY(std::string text, read_key_file(path, Privacy::kSecret));
  const Bio bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
  std::shared_ptr<EVP_PKEY> key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_password, nullptr),
                                EVP_PKEY_free);
  OPENSSL_cleanse(text.data(), text.size());
  if (!key) return fail("the key " + path + " is not an unencrypted private key in PEM");
  auto out = from(std::move(key));
  if (!out) return fail("the key " + path + ": " + out.error().what);
  return out;
}

Result<HolderKey> HolderKey::make(const std::string& path) {
  CG_TRY(HolderKey out, from({EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"), EVP_PKEY_free}));
  const Bio secret(BIO_new(BIO_s_mem())), open(BIO_new(BIO_s_mem()));
  EVP_PKEY* key = out.key_.get();
  if (!secret || !open ||
      PEM_write_bio_PrivateKey(secret.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1 ||
      PEM_write_bio_PUBKEY(open.get(), key) != 1) {
    return fail("OpenSSL could not write a key");
  }
  CG_CHECK(write_new(path, text_of(secret.get()), 0600));
  CG_CHECK(write_new(path + ".pub", text_of(open.get()), 0644));
  return out;
}

Result<Signature> HolderKey::sign(std::string_view message) const {
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> ctx(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  Signature out;
  size_t size = out.size();
  // NOLINTNEXTLINE: OpenSSL speaks unsigned char
  const auto* data = reinterpret_cast<const unsigned char*>(message.data());
  if (!ctx || EVP_DigestSignInit(ctx.get(), nullptr, nullptr, nullptr, key_.get()) != 1 ||
      EVP_DigestSign(ctx.get(), out.data(), &size, data, message.size()) != 1 ||
      size != out.size()) {
    return fail("OpenSSL could not sign");
  }
  return out;
}

Result<std::string> read_holder(const std::string& text) {
  if (text.starts_with(kPrefix)) {
    const bool good =
        text.size() == kPrefix.size() + 64 &&
        text.find_first_not_of("0123456789abcdef", kPrefix.size()) == std::string::npos;
    return good ? Result<std::string>(text)
                : Result<std::string>(fail("a holder is ed25519: and 64 lower-case hex digits"));
  }
  CG_TRY(const std::string pem, read_key_file(text, Privacy::kPublic));
  const Bio bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key(
      PEM_read_bio_PUBKEY(bio.get(), nullptr, no_password, nullptr), EVP_PKEY_free);
  if (!key) return fail("the key " + text + " is not a public key in PEM");
  return holder_of_key(key.get());
}

}  // namespace certgate::agentd
