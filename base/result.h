#ifndef CUBE_BASE_RESULT_H_
#define CUBE_BASE_RESULT_H_

#include <cassert>
#include <cstdarg>
#include <optional>
#include <string>
#include <utility>

namespace cube {

// Why an operation failed, in one line that a user can act on: it names the value and the limit.
class Error {
 public:
  explicit Error(std::string message) : message_(std::move(message)) {}

  const std::string& message() const { return message_; }

  // Puts what was being done before the reason: "loading FILE: not an ELF file".
  Error Wrap(const std::string& doing) && { return Error(doing + ": " + message_); }

 private:
  std::string message_;
};

// An error from a printf format; the format is checked at compile time.
[[gnu::format(printf, 1, 2)]] Error Errorf(const char* format, ...);

// An error for a failed system call: the text, then the meaning of `errno` as it is on entry.
[[gnu::format(printf, 1, 2)]] Error ErrnoError(const char* format, ...);

// A string from a printf format.
[[gnu::format(printf, 1, 2)]] std::string Format(const char* format, ...);

// A value, or the reason there is none. Reading value() of a failure, or error() of a success, is
// a bug of the caller and aborts.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}           // NOLINT(google-explicit-constructor)
  Result(Error error) : error_(std::move(error)) {}       // NOLINT(google-explicit-constructor)

  bool ok() const { return value_.has_value(); }
  T& value() & { return *Checked(); }
  const T& value() const& { return *const_cast<Result*>(this)->Checked(); }
  T&& value() && { return std::move(*Checked()); }
  T* operator->() { return Checked(); }
  T& operator*() { return *Checked(); }
  const Error& error() const {
    if (ok()) __builtin_trap();
    return *error_;
  }

 private:
  T* Checked() {
    if (!ok()) __builtin_trap();
    return &*value_;
  }

  std::optional<T> value_;
  std::optional<Error> error_;
};

// Success, or the reason for failure.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return !error_.has_value(); }
  const Error& error() const {
    if (ok()) __builtin_trap();
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

inline Status OkStatus() { return Status(); }

// Leaves the function with the error of `expr`, a Status, if it has one.
#define CUBE_TRY(expr)                                        \
  do {                                                        \
    auto&& cube_try_status = (expr);                          \
    if (!cube_try_status.ok()) return cube_try_status.error(); \
  } while (0)

#define CUBE_CONCAT_(a, b) a##b
#define CUBE_CONCAT(a, b) CUBE_CONCAT_(a, b)
#define CUBE_ASSIGN_IMPL_(tmp, lhs, expr) \
  auto tmp = (expr);                      \
  if (!tmp.ok()) return tmp.error();      \
  lhs = std::move(tmp).value()

// Declares or sets `lhs` from the Result `expr`, or leaves the function with its error.
#define CUBE_ASSIGN(lhs, expr) CUBE_ASSIGN_IMPL_(CUBE_CONCAT(cube_result_, __LINE__), lhs, expr)

}  // namespace cube

#endif  // CUBE_BASE_RESULT_H_
