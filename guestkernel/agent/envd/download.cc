#include "guestkernel/agent/envd/download.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <utility>

#include "guestkernel/agent/envd/rest_error.h"

namespace cube::agent::envd {

using connect::Code;
using connect::FromErrno;
using connect::Outcome;
using connect::RpcError;

namespace {

// Of a file, where memory is short.
constexpr size_t kSmallPiece = 16 * 1024;

}  // namespace

Download::Download(const http::Request& request, http::Response* response, Context* context)
    : context_(context), response_(response) {
  Outcome<bool> begun = Begin(request);
  if (!begun.ok()) SendError(response_, begun.error());
}

Outcome<bool> Download::Begin(const http::Request& request) {
  const std::string* name = request.Parameter("username");
  Outcome<User> user = context_->UserNamed(name == nullptr ? "" : *name);
  if (!user.ok()) return user.error();
  const std::string* wanted = request.Parameter("path");
  Outcome<std::string> path = context_->ResolveFile(wanted == nullptr ? "" : *wanted, *user);
  if (!path.ok()) return path.error();
  // Not blocking: a pipe that nobody writes to would never open.
  file_ = UniqueFd(open(path->c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!file_.valid()) {
    if (errno == ENOENT || errno == ENOTDIR) {
      return RpcError{Code::kNotFound, "path '" + *path + "' does not exist"};
    }
    return FromErrno(errno, "cannot read '" + *path + "'");
  }
  struct stat info;
  if (fstat(file_.get(), &info) < 0) return FromErrno(errno, "cannot read '" + *path + "'");
  if (S_ISDIR(info.st_mode)) {
    return RpcError{Code::kInvalidArgument, "path '" + *path + "' is a directory"};
  }
  if (!S_ISREG(info.st_mode)) {
    return RpcError{Code::kInvalidArgument, "path '" + *path + "' is not a file"};
  }
  left_ = static_cast<uint64_t>(info.st_size);
  std::optional<uint64_t> length = left_;
  if (left_ == 0) {
    // Files of the kernel say that they are empty, and are not.
    const ssize_t n = read(file_.get(), context_->scratch.data(), context_->scratch.size());
    sized_ = n <= 0;
    if (!sized_) {
      length.reset();
      response_->Start(200, {{"Content-Type", "application/octet-stream"}}, length);
      response_->Write({context_->scratch.data(), static_cast<size_t>(n)});
      return true;  // the rest when this has been sent
    }
  }
  response_->Start(200, {{"Content-Type", "application/octet-stream"}}, length);
  if (request.method == "HEAD" || left_ == 0) {
    response_->Finish();
  } else {
    Send();
  }
  return true;
}

void Download::Send() {
  const std::span<char> scratch = context_->scratch;
  size_t size = context_->memory->tight() ? kSmallPiece : scratch.size();
  if (sized_) size = static_cast<size_t>(std::min<uint64_t>(left_, size));
  ssize_t n;
  while ((n = read(file_.get(), scratch.data(), size)) < 0 && errno == EINTR) {
  }
  if (n <= 0 && !sized_) return response_->Finish();
  // It has become shorter than it was.
  if (n <= 0) return response_->Abort();
  response_->Write({scratch.data(), static_cast<size_t>(n)});
  if (!sized_) return;
  left_ -= static_cast<uint64_t>(n);
  if (left_ == 0) response_->Finish();
}

}  // namespace cube::agent::envd
