#include "vmm/cli/control_command.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cstdio>
#include <filesystem>

#include "base/json_writer.h"
#include "vmm/cli/command_answer.h"
#include "vmm/cli/control_request.h"
#include "vmm/cli/control_server.h"
#include "vmm/cli/cube_home.h"

namespace cube::vmm {
namespace {

namespace json = boost::json;

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

std::string Text(const json::value& value) {
  return value.is_string() ? std::string(value.get_string()) : json::serialize(value);
}

// For people: the ids of clones that were made, or each field in a line; what went wrong on stderr.
void PrintAnswer(const json::object& answer) {
  if (const json::value* clones = answer.if_contains("clones"); clones && clones->is_array()) {
    for (const json::value& clone : clones->get_array()) {
      const json::value* id = clone.is_object() ? clone.get_object().if_contains("id") : nullptr;
      if (id != nullptr) printf("%s\n", Text(*id).c_str());
    }
  } else {
    for (const auto& [key, value] : answer) {
      if (key == "ok" || key == "error") continue;
      printf("%s: %s\n", std::string(key).c_str(), Text(value).c_str());
    }
  }
  if (const json::value* error = answer.if_contains("error")) {
    fprintf(stderr, "cube-vmm: %s\n", Text(*error).c_str());
  }
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

std::string ForkRequest(uint64_t count) {
  JsonWriter request;
  request.BeginObject().Key("op").String("fork").Key("count").Uint(count);
  return request.EndObject().text();
}

std::string PlainRequest(const char* op) {
  JsonWriter request;
  return request.BeginObject().Key("op").String(op).EndObject().text();
}

int ControlCommand(const std::string& sandbox, const std::string& request, bool as_json) {
  auto answer = Ask(sandbox, request);
  if (!answer.ok()) {
    return AnswerError(answer.error(), as_json);
  }
  json::error_code failed;
  json::value value = json::parse(*answer, failed);
  const json::object* object = failed ? nullptr : value.if_object();
  const json::value* ok = object != nullptr ? object->if_contains("ok") : nullptr;
  bool done = ok != nullptr && ok->is_bool() && ok->get_bool();
  if (as_json) {
    printf("%s\n", answer->c_str());
  } else if (object == nullptr) {
    fprintf(stderr, "cube-vmm: not an answer: %s\n", answer->c_str());
  } else {
    PrintAnswer(*object);
  }
  return done ? 0 : 1;
}

}  // namespace cube::vmm
