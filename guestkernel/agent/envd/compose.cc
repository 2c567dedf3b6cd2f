#include "guestkernel/agent/envd/compose.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "guestkernel/agent/connect/message.h"
#include "guestkernel/agent/envd/rest_error.h"

namespace cube::agent::envd {

using connect::Code;
using connect::FromErrno;
using connect::Message;
using connect::Outcome;
using connect::RpcError;

namespace {

constexpr size_t kMaxBody = 1 << 20;
constexpr size_t kMaxSources = 256;  // each is open while they are joined
constexpr size_t kPiece = 4 << 20;

}  // namespace

void Compose::Fail(const RpcError& error) {
  failed_ = true;
  SendError(response_, FileErrorStatus(error), error.message);
}

void Compose::OnBody(std::string_view bytes) {
  if (failed_) return;
  if (bytes.size() > kMaxBody - body_.size()) {
    return Fail({Code::kInvalidArgument, "at most 1 MiB of paths are possible"});
  }
  if (!memory_.Keep(body_.size() + bytes.size())) {
    failed_ = true;
    return SendError(response_, 503, context_->memory->Refusal());
  }
  body_ += bytes;
}

void Compose::OnBodyEnd() {
  if (failed_) return;
  Outcome<bool> begun = Begin();
  if (!begun.ok()) return Fail(begun.error());
  Copy();
}

Outcome<bool> Compose::Begin() {
  Outcome<Message> message = Message::Parse(body_);
  if (!message.ok()) return message.error();
  const std::vector<std::string> paths = message->Strings("source_paths");
  const std::string destination = message->String("destination");
  const std::string name = message->String("username");
  if (!message->error().empty()) return RpcError{Code::kInvalidArgument, message->error()};
  if (paths.empty() || paths.size() > kMaxSources || destination.empty()) {
    return RpcError{Code::kInvalidArgument,
                    Format("a destination and 1 to %zu source paths are needed", kMaxSources)};
  }
  Outcome<User> user = context_->UserNamed(name);
  if (!user.ok()) return user.error();
  Outcome<std::string> target = context_->ResolveFile(destination, *user);
  if (!target.ok()) return target.error();
  struct stat old;
  const bool is_there = stat(target->c_str(), &old) == 0;
  for (const std::string& each : paths) {
    Outcome<std::string> path = context_->ResolveFile(each, *user);
    if (!path.ok()) return path.error();
    UniqueFd source(open(path->c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
    if (!source.valid()) {
      if (errno == ENOENT) return RpcError{Code::kNotFound, "path '" + *path + "' does not exist"};
      return FromErrno(errno, "cannot read '" + *path + "'");
    }
    struct stat info;
    if (fstat(source.get(), &info) < 0 || !S_ISREG(info.st_mode)) {
      return RpcError{Code::kInvalidArgument, "path '" + *path + "' is not a file"};
    }
    if (is_there && info.st_dev == old.st_dev && info.st_ino == old.st_ino) {
      return RpcError{Code::kInvalidArgument, "the destination is one of the sources"};
    }
    sources_.push_back(std::move(source));
  }
  Outcome<FileTarget> file = FileTarget::Open(watchers_, *target, *user, {});
  if (!file.ok()) return file.error();
  file_ = std::move(file).value();
  return true;
}

Outcome<bool> Compose::CopyPiece() {
  const ssize_t n =
      copy_file_range(sources_[source_].get(), nullptr, file_->fd(), nullptr, kPiece, 0);
  if (n < 0 && errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != EINTR) {
    return FromErrno(errno, "cannot write to '" + file_->path() + "'");
  }
  if (n < 0 && errno != EINTR) {
    // Between file systems of two kinds.
    const std::span<char> scratch = context_->scratch;
    const ssize_t size = read(sources_[source_].get(), scratch.data(), scratch.size());
    if (size < 0) return FromErrno(errno, "cannot read a source");
    if (size > 0) return file_->Write({scratch.data(), static_cast<size_t>(size)});
  }
  if (n == 0 || (n < 0 && errno != EINTR)) ++source_;
  return true;
}

void Compose::Copy() {
  Outcome<bool> copied = CopyPiece();
  if (!copied.ok()) return Fail(copied.error());
  if (source_ < sources_.size()) {
    next_ = context_->loop->After(0, [this] { Copy(); });
    return;
  }
  JsonWriter answer;
  file_->WriteInfo(&answer);
  response_->Send(200, {{"Content-Type", "application/json"}}, answer.text());
}

}  // namespace cube::agent::envd
