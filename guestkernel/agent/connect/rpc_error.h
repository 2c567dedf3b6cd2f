#ifndef CUBE_GUESTKERNEL_AGENT_CONNECT_RPC_ERROR_H_
#define CUBE_GUESTKERNEL_AGENT_CONNECT_RPC_ERROR_H_

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace cube::agent::connect {

// The error codes of the Connect protocol that this server has use for.
enum class Code {
  kCanceled,
  kInvalidArgument,
  kDeadlineExceeded,
  kNotFound,
  kAlreadyExists,
  kPermissionDenied,
  kResourceExhausted,
  kFailedPrecondition,
  kUnimplemented,
  kInternal,
  kUnauthenticated,
};

// As it is on the wire.
std::string_view CodeName(Code code);
// The HTTP status of a unary call that fails with it.
int HttpStatus(Code code);

// Why a call failed: a code for the client's program, a line for its user.
struct RpcError {
  Code code = Code::kInternal;
  std::string message;

  // {"code":...,"message":...}
  std::string ToJson() const;
};

// The code for a system call that failed with `error` (errno), with "message: what errno means".
RpcError FromErrno(int error, const std::string& message);

// A value, or why there is none.
template <typename T>
class [[nodiscard]] Outcome {
 public:
  Outcome(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Outcome(RpcError error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  bool ok() const { return value_.has_value(); }
  T& operator*() { return *value_; }
  T* operator->() { return &*value_; }
  T&& value() && { return std::move(*value_); }
  const RpcError& error() const { return error_; }

 private:
  std::optional<T> value_;
  RpcError error_;
};

}  // namespace cube::agent::connect

#endif  // CUBE_GUESTKERNEL_AGENT_CONNECT_RPC_ERROR_H_
