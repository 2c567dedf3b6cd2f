#ifndef CUBE_POOL_OUTCOME_H_
#define CUBE_POOL_OUTCOME_H_

#include <optional>
#include <string>
#include <utility>

#include "base/result.h"

namespace cube::pool {

// What kind of thing stood in the way: what a client can do about it depends on that.
enum class Fault {
  kInvalid,     // the request says what cannot be
  kNotFound,    // there is no such sandbox, template or snapshot
  kConflict,    // not in the state that it is in
  kNoCapacity,  // the node is full, ask later or elsewhere
  kDraining,    // the node takes no more
  kInternal,    // ours or the host's
};

// The word for it in the control protocol: "invalid", "not_found", ...
const char* FaultName(Fault fault);

// Why a request came to nothing, in one line.
struct Refusal {
  Fault fault = Fault::kInternal;
  std::string message;
};

[[gnu::format(printf, 2, 3)]] Refusal Refuse(Fault fault, const char* format, ...);

// A value, or why there is none. Reading the wrong one is a bug and aborts.
template <typename T>
class [[nodiscard]] Outcome {
 public:
  Outcome(T value) : value_(std::move(value)) {}              // NOLINT(google-explicit-constructor)
  Outcome(Refusal refusal) : refusal_(std::move(refusal)) {}  // NOLINT(google-explicit-constructor)
  Outcome(const Error& error)                                 // NOLINT(google-explicit-constructor)
      : refusal_{Fault::kInternal, error.message()} {}

  bool ok() const { return value_.has_value(); }
  T& value() & { return *Checked(); }
  T&& value() && { return std::move(*Checked()); }
  T* operator->() { return Checked(); }
  T& operator*() { return *Checked(); }
  const Refusal& refusal() const {
    if (ok()) __builtin_trap();
    return refusal_;
  }

 private:
  T* Checked() {
    if (!ok()) __builtin_trap();
    return &*value_;
  }

  std::optional<T> value_;
  Refusal refusal_;
};

// The value of what has none.
struct Done {};

inline const Refusal& RefusalOf(const Refusal& refusal) { return refusal; }
template <typename T>
Refusal RefusalOf(const Outcome<T>& outcome) {
  return outcome.refusal();
}
template <typename T>
Refusal RefusalOf(const Result<T>& result) {
  return {Fault::kInternal, result.error().message()};
}
inline Refusal RefusalOf(const Status& status) {
  return {Fault::kInternal, status.error().message()};
}

// As CUBE_TRY and CUBE_ASSIGN (base/result.h), for functions that return an Outcome, and, with
// _CO_, for coroutines.
#define POOL_TRY_IMPL_(leave, expr)                                            \
  do {                                                                         \
    auto pool_try_result = (expr);                                             \
    if (!pool_try_result.ok()) leave ::cube::pool::RefusalOf(pool_try_result); \
  } while (0)
#define POOL_ASSIGN_IMPL_(leave, tmp, lhs, expr)     \
  auto tmp = (expr);                                 \
  if (!tmp.ok()) leave ::cube::pool::RefusalOf(tmp); \
  lhs = std::move(tmp).value()

#define POOL_TRY(expr) POOL_TRY_IMPL_(return, expr)
#define POOL_CO_TRY(expr) POOL_TRY_IMPL_(co_return, expr)
#define POOL_ASSIGN(lhs, expr) \
  POOL_ASSIGN_IMPL_(return, CUBE_CONCAT(pool_result_, __LINE__), lhs, expr)
#define POOL_CO_ASSIGN(lhs, expr) \
  POOL_ASSIGN_IMPL_(co_return, CUBE_CONCAT(pool_result_, __LINE__), lhs, expr)

}  // namespace cube::pool

#endif  // CUBE_POOL_OUTCOME_H_
