#include "vmm/cli/control_command.h"

#include <cstdio>
#include <filesystem>

#include "base/json_writer.h"
#include "vmm/cli/control_request.h"
#include "vmm/cli/control_server.h"
#include "vmm/cli/run_options.h"
#include "vmm/cli/template_cache.h"

namespace cube::vmm {
namespace {

// The sandbox is another process, perhaps in another folder.
std::string Absolute(const std::string& path) {
  std::error_code failed;
  std::filesystem::path absolute = std::filesystem::absolute(path, failed);
  return failed ? path : absolute.lexically_normal().string();
}

Result<std::string> Ask(const std::string& sandbox, const std::string& request) {
  bool is_path = sandbox.find('/') != std::string::npos;
  CUBE_ASSIGN(UniqueFd socket, ConnectControl(is_path ? sandbox : ControlPath(sandbox)));
  CUBE_TRY(SendLine(socket.get(), request));
  std::string buffer;
  return ReceiveLine(socket.get(), &buffer);
}

}  // namespace

std::string SnapshotRequest(const std::string& path, bool diff, bool durable) {
  JsonWriter request;
  request.BeginObject().Key("op").String("snapshot").Key("path").String(Absolute(path));
  request.Key("diff").Bool(diff).Key("durable").Bool(durable).EndObject();
  return request.text();
}

std::string RollbackRequest(const std::string& path) {
  JsonWriter request;
  request.BeginObject().Key("op").String("rollback").Key("path").String(Absolute(path));
  return request.EndObject().text();
}

std::string PlainRequest(const char* op) {
  JsonWriter request;
  return request.BeginObject().Key("op").String(op).EndObject().text();
}

int ControlCommand(const std::string& sandbox, const std::string& request, bool json) {
  auto answer = Ask(sandbox, request);
  if (!answer.ok()) {
    fprintf(stderr, "cube-vmm: %s\n", answer.error().message().c_str());
    return kStatusVmmError;
  }
  auto parsed = ControlRequest::Parse(*answer);
  bool done = parsed.ok() && parsed->Bool("ok", false).ok() && *parsed->Bool("ok", false);
  if (json || done) {
    printf("%s\n", answer->c_str());
  } else {
    auto reason = parsed.ok() ? parsed->String("error", *answer) : Result<std::string>(*answer);
    fprintf(stderr, "cube-vmm: %s\n", reason.ok() ? reason->c_str() : answer->c_str());
  }
  return done ? 0 : 1;
}

}  // namespace cube::vmm
