#include "guestkernel/agent/envd/upload.h"

#include <utility>

#include "guestkernel/agent/envd/rest_error.h"

namespace cube::agent::envd {

using connect::Code;
using connect::Outcome;
using connect::RpcError;

namespace {

constexpr char kFormField[] = "file";

}  // namespace

Upload::Upload(const http::Request& request, http::Response* response, Context* context,
               WatcherTable* watchers)
    : context_(context), watchers_(watchers), response_(response) {
  answer_.BeginArray();
  Outcome<bool> begun = Begin(request);
  if (!begun.ok()) Fail(begun.error());
}

Outcome<bool> Upload::Begin(const http::Request& request) {
  const std::string* name = request.Parameter("username");
  Outcome<User> user = context_->UserNamed(name == nullptr ? "" : *name);
  if (!user.ok()) return user.error();
  user_ = std::move(user).value();
  Outcome<Metadata> metadata = MetadataOf(request);
  if (!metadata.ok()) return metadata.error();
  metadata_ = std::move(metadata).value();
  if (const std::string* path = request.Parameter("path"); path != nullptr && !path->empty()) {
    path_ = *path;
  }
  const std::string* encoding = request.Field("content-encoding");
  if (encoding != nullptr && *encoding == "gzip") {
    gunzip_ = Gunzip::Create(context_->scratch);
    if (gunzip_ == nullptr) return RpcError{Code::kInternal, "no memory to undo gzip"};
  } else if (encoding != nullptr && !encoding->empty() && *encoding != "identity") {
    return RpcError{Code::kInvalidArgument, "unknown content encoding '" + *encoding + "'"};
  }
  const std::string* type = request.Field("content-type");
  const std::string text = type == nullptr ? "" : *type;
  if (std::optional<std::string> boundary = MultipartReader::Boundary(text)) {
    parts_.emplace(
        *boundary,
        MultipartReader::Sink{.begin = [this](const PartHead& head) { return BeginPart(head); },
                              .data = [this](std::string_view bytes) { return WriteToFile(bytes); },
                              .end = [this] { return EndFile(); }});
    return true;
  }
  if (!text.starts_with("application/octet-stream")) {
    return RpcError{Code::kInvalidArgument,
                    "the body has to be multipart/form-data with a boundary, or "
                    "application/octet-stream, not '" +
                        text + "'"};
  }
  if (!path_) return RpcError{Code::kInvalidArgument, "the query has no path"};
  if (!OpenFile(*path_).ok()) return error_;
  return true;
}

void Upload::Fail(const RpcError& error) {
  if (std::exchange(failed_, true)) return;
  file_.reset();
  SendError(response_, FileErrorStatus(error), error.message);
}

Status Upload::OpenFile(const std::string& name) {
  auto fail = [this](RpcError error) -> Status {
    error_ = std::move(error);
    return Error(error_.message);
  };
  Outcome<std::string> path = context_->ResolveFile(name, user_);
  if (!path.ok()) return fail(path.error());
  if (!written_.insert(*path).second) {
    return fail({Code::kInvalidArgument, "two files for the path '" + *path + "'"});
  }
  Outcome<FileTarget> file = FileTarget::Open(watchers_, *path, user_, metadata_);
  if (!file.ok()) return fail(file.error());
  file_ = std::move(file).value();
  return OkStatus();
}

Status Upload::BeginPart(const PartHead& head) {
  if (head.name != kFormField) return OkStatus();
  if (path_) return OpenFile(*path_);
  if (head.filename && !head.filename->empty()) return OpenFile(*head.filename);
  error_ = {Code::kInvalidArgument, "a part without a filename, and no path in the query"};
  return Error(error_.message);
}

Status Upload::WriteToFile(std::string_view bytes) {
  if (!file_) return OkStatus();
  Outcome<bool> written = file_->Write(bytes);
  if (written.ok()) return OkStatus();
  error_ = written.error();
  return Error(error_.message);
}

Status Upload::EndFile() {
  if (!file_) return OkStatus();
  file_->WriteInfo(&answer_);
  file_.reset();
  return OkStatus();
}

Status Upload::TakePlain(std::string_view bytes) {
  return parts_ ? parts_->Add(bytes) : WriteToFile(bytes);
}

void Upload::OnBody(std::string_view bytes) {
  if (failed_) return;
  Status taken =
      gunzip_ == nullptr
          ? TakePlain(bytes)
          : gunzip_->Add(bytes, [this](std::string_view plain) { return TakePlain(plain); });
  if (taken.ok()) return;
  // One of the body itself, unless there is one of a file.
  Fail(error_.message.empty() ? RpcError{Code::kInvalidArgument, taken.error().message()} : error_);
}

void Upload::OnBodyEnd() {
  if (failed_) return;
  if (gunzip_ != nullptr && !gunzip_->complete()) {
    return Fail({Code::kInvalidArgument, "the body is not gzip, or not whole"});
  }
  if (parts_ && !parts_->complete()) {
    return Fail({Code::kInvalidArgument, "the last boundary is missing"});
  }
  if (!parts_) (void)EndFile().ok();
  response_->Send(200, {{"Content-Type", "application/json"}}, answer_.EndArray().text());
}

}  // namespace cube::agent::envd
