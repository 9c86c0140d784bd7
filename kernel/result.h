// Result<T>: the one way a certgate function says that it failed.
//
//   Result<Policy> load(const std::string& path);
//
//   Status start() {
//     CG_TRY(Policy policy, load("a.toml"));   // returns the error to our caller
//     CG_CHECK(apply(policy));                 // the same for a Status
//     return ok();
//   }
//
// An Error says what failed, where, and the cure, in one line for a human. `code` is an errno
// where the failure came from the system (0 otherwise), so that callers can tell ENOENT from EIO.
#pragma once

#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace certgate {

struct [[nodiscard]] Error {
  std::string what;  // one line: what failed, on what, and the cure
  int code = 0;      // errno of the cause, 0 when there is none
};

inline Error fail(std::string what, int code = 0) { return Error{std::move(what), code}; }

// "open /x: No such file or directory": the error of a failed system call.
inline Error fail_errno(const std::string& what, int code) {
  return Error{what + ": " + std::strerror(code), code};
}

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}

  explicit operator bool() const { return state_.index() == 0; }
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  Error& error() { return std::get<1>(state_); }
  const Error& error() const { return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

struct Unit {};
using Status = Result<Unit>;
inline Status ok() { return Status(Unit{}); }

}  // namespace certgate

#define CG_CONCAT_(a, b) a##b
#define CG_CONCAT(a, b) CG_CONCAT_(a, b)
// Declares `decl` from the value of a Result, or returns its error from this function.
#define CG_TRY(decl, ...) CG_TRY_(CG_CONCAT(cg_result_, __COUNTER__), decl, __VA_ARGS__)
#define CG_TRY_(tmp, decl, ...)                    \
  auto tmp = (__VA_ARGS__);                        \
  if (!tmp) return ::certgate::Error(tmp.error()); \
  decl = std::move(tmp).value()
// Returns the error of a Status (or of a Result whose value is not needed) from this function.
#define CG_CHECK(...)                                            \
  do {                                                           \
    auto cg_status = (__VA_ARGS__);                              \
    if (!cg_status) return ::certgate::Error(cg_status.error()); \
  } while (false)
