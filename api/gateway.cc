#include "api/gateway.h"

#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <set>

#include "api/sandbox_notes.h"
#include "api/secret.h"
#include "api/url.h"
#include "base/json_writer.h"

namespace cube::api {
namespace {

using pool::Sandbox;
using pool::SandboxState;

constexpr uint16_t kEnvdPort = 49983;
// A sandbox that a request wakes has at least so long.
constexpr uint32_t kWokenSeconds = 300;

// What of the agent's is the node's to say.
const std::set<std::string> kInternalPaths = {"/init",   "/freeze",   "/unfreeze", "/fsfreeze",
                                              "/fsthaw", "/collapse", "/upgrade"};

Reply Wrong(unsigned status, const SandboxAddress& address, const char* message,
            bool with_port = false) {
  JsonWriter json;
  json.BeginObject().Key("sandboxId").String(address.sandbox).Key("message").String(message);
  if (with_port) json.Key("port").Uint(address.port);
  json.Key("code").Uint(status).EndObject();
  return Reply::Json(status, json.text());
}

bool IsInternal(const std::string& path) {
  auto decoded = PercentDecode(path, false);
  return !decoded || kInternalPaths.contains(*decoded);
}

// Whether it can carry another request: nothing has come, and it is not over.
bool IsIdle(const GuestLink& link) {
  if (!link.socket.is_open() || link.buffer.size() != 0) return false;
  char byte;
  auto& socket = const_cast<Socket&>(link.socket);
  ssize_t n = recv(socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

std::string Masked(std::string host, uint16_t port) {
  constexpr std::string_view kPort = "${PORT}";
  size_t place = host.find(kPort);
  if (place != std::string::npos) host.replace(place, kPort.size(), std::to_string(port));
  return host;
}

}  // namespace

Task<std::shared_ptr<Sandbox>> Gateway::Awake(std::string id) {
  auto found = node_->Find(id);
  if (!found.ok()) co_return nullptr;
  auto sandbox = *found;
  switch (sandbox->state()) {
    case SandboxState::kRunning:
    case SandboxState::kSnapshotting:
      co_return sandbox;
    case SandboxState::kResuming:
    case SandboxState::kPausing:
    case SandboxState::kPaused: {
      bool wakes = SandboxNotes::Parse(sandbox->record().annotation).auto_resume;
      if (!wakes && sandbox->state() != SandboxState::kResuming) co_return nullptr;
      uint32_t seconds = std::max(sandbox->record().timeout_seconds, kWokenSeconds);
      auto connected = co_await sandbox->Connect(seconds);
      if (connected.ok()) co_return sandbox;
      spdlog::warn("sandbox {}: {}", id, connected.refusal().message);
      co_return nullptr;
    }
    default:
      co_return nullptr;
  }
}

Task<Handlers::Opened> Gateway::Open(SandboxAddress address, std::shared_ptr<Request> request,
                                     std::shared_ptr<GuestLink> idle) {
  Handlers::Opened opened;
  if (address.port == kEnvdPort && IsInternal(request->path)) {
    opened.instead = Wrong(403, address, "This is not for clients");
    co_return opened;
  }
  auto sandbox = co_await Awake(address.sandbox);
  if (sandbox == nullptr) {
    opened.instead = Wrong(502, address, "The sandbox was not found");
    co_return opened;
  }
  const pool::SandboxRecord& record = sandbox->record();
  if (address.port != kEnvdPort) {
    SandboxNotes notes = SandboxNotes::Parse(record.annotation);
    if (!notes.traffic_token.empty()) {
      const std::string* shown = request->headers.Find("e2b-traffic-access-token");
      if (shown == nullptr || !SameSecret(*shown, notes.traffic_token)) {
        opened.instead = Wrong(403, address,
                               shown == nullptr ? "The traffic access token is missing"
                                                : "The traffic access token is not valid");
        co_return opened;
      }
    }
    if (!notes.mask_host.empty()) opened.host = Masked(notes.mask_host, address.port);
  }
  if (idle != nullptr && idle->sandbox == address.sandbox && idle->port == address.port &&
      idle->process == record.pid && IsIdle(*idle)) {
    opened.guest = std::move(idle);
    co_return opened;
  }
  pid_t process = record.pid;
  auto result = co_await ConnectToGuest(node_->context().io, record.vsock, address.port);
  switch (result.fault) {
    case LinkFault::kNone:
      result.link->sandbox = address.sandbox;
      result.link->process = process;
      opened.guest = std::move(result.link);
      break;
    case LinkFault::kNoMachine:
      opened.instead = Wrong(502, address, "The sandbox was not found");
      break;
    case LinkFault::kPortClosed:
      opened.instead = Wrong(502, address, "The sandbox is running but port is not open", true);
      break;
  }
  co_return opened;
}

}  // namespace cube::api
