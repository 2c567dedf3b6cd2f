#include "guestkernel/agent/connect/rpc_error.h"

#include <cerrno>
#include <cstring>

#include "base/json_writer.h"

namespace cube::agent::connect {
namespace {

struct Row {
  Code code;
  std::string_view name;
  int status;
};

constexpr Row kRows[] = {
    {Code::kCanceled, "canceled", 499},
    {Code::kInvalidArgument, "invalid_argument", 400},
    {Code::kDeadlineExceeded, "deadline_exceeded", 504},
    {Code::kNotFound, "not_found", 404},
    {Code::kAlreadyExists, "already_exists", 409},
    {Code::kPermissionDenied, "permission_denied", 403},
    {Code::kResourceExhausted, "resource_exhausted", 429},
    {Code::kFailedPrecondition, "failed_precondition", 400},
    {Code::kUnimplemented, "unimplemented", 501},
    {Code::kInternal, "internal", 500},
    {Code::kUnauthenticated, "unauthenticated", 401},
};

const Row& Find(Code code) {
  for (const Row& row : kRows) {
    if (row.code == code) return row;
  }
  __builtin_trap();
}

Code CodeOf(int error) {
  switch (error) {
    case ENOENT:
      return Code::kNotFound;
    case EEXIST:
      return Code::kAlreadyExists;
    case EACCES:
    case EPERM:
    case EROFS:
      return Code::kPermissionDenied;
    case ENOTDIR:
    case EISDIR:
    case EINVAL:
    case ELOOP:
    case E2BIG:
    case ENOEXEC:
    case ENAMETOOLONG:
      return Code::kInvalidArgument;
    case ENOTEMPTY:
    case EBUSY:
      return Code::kFailedPrecondition;
    case EAGAIN:
    case ENOMEM:
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
      return Code::kResourceExhausted;
    default:
      return Code::kInternal;
  }
}

}  // namespace

std::string_view CodeName(Code code) { return Find(code).name; }

int HttpStatus(Code code) { return Find(code).status; }

std::string RpcError::ToJson() const {
  JsonWriter writer;
  writer.BeginObject().Key("code").String(CodeName(code)).Key("message").String(message);
  return writer.EndObject().text();
}

RpcError FromErrno(int error, const std::string& message) {
  return {CodeOf(error), message + ": " + strerror(error)};
}

}  // namespace cube::agent::connect
