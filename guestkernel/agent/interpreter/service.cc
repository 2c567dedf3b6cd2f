#include "guestkernel/agent/interpreter/service.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/json_writer.h"
#include "guestkernel/agent/connect/message.h"
#include "guestkernel/agent/envd/secret.h"
#include "guestkernel/agent/http/simple_handlers.h"

namespace cube::agent::interpreter {
namespace {

using connect::Message;
using connect::Outcome;
using http::Handler;
using http::Request;
using http::Response;

constexpr size_t kMaxCode = 64 << 20;
constexpr size_t kMaxContextBody = 64 << 10;
constexpr std::string_view kLanguages = "python, javascript, typescript and bash are";

void SendText(Response* response, int status, std::string_view text) {
  response->Send(status, {{"Content-Type", "text/plain; charset=utf-8"}}, text);
}

void SendJson(Response* response, const JsonWriter& json) {
  response->Send(200, {{"Content-Type", "application/json"}}, json.text());
}

void WriteContext(Interpreter* interpreter, Context* context, JsonWriter* json) {
  json->BeginObject()
      .Key("id")
      .String(interpreter->Id(context))
      .Key("language")
      .String(LanguageName(context->language()))
      .Key("cwd")
      .String(context->directory())
      .EndObject();
}

// The language a request names, Python if it names none; else it has been answered.
std::optional<Language> LanguageOf(const Message& message, Response* response) {
  const std::string name = message.String("language");
  std::optional<Language> language =
      name.empty() ? std::optional(Language::kPython) : ParseLanguage(name);
  if (!language) {
    SendText(response, 400,
             Format("language '%s' is not supported, %s", name.c_str(),
                    std::string(kLanguages).c_str()));
    return std::nullopt;
  }
  Status can_run = Interpreter::CanRun(*language);
  if (!can_run.ok()) {
    SendText(response, 400, can_run.error().message());
    return std::nullopt;
  }
  return language;
}

std::string NoContext(std::string_view id) {
  return Format("Context %.*s not found", static_cast<int>(std::min<size_t>(id.size(), 100)),
                id.data());
}

// POST /execute. Its client's leaving is what interrupts the execution.
class ExecuteHandler final : public Handler, private Execution {
 public:
  ExecuteHandler(Interpreter* interpreter, Response* response)
      : interpreter_(interpreter), response_(response), memory_(response->memory()) {}
  ~ExecuteHandler() override {
    if (context_ != nullptr) context_->Cancel(this);
  }

  void OnBody(std::string_view bytes) override {
    if (bytes.size() > kMaxCode - body_.size()) {
      SendText(response_, 413, Format("the request is larger than %zu bytes", kMaxCode));
      return;
    }
    if (!memory_.Keep(body_.size() + bytes.size())) {
      return SendText(response_, 503, response_->memory()->Refusal());
    }
    body_ += bytes;
  }

  void OnBodyEnd() override {
    Outcome<Message> message = Message::Parse(body_);
    body_ = std::string();
    if (!message.ok()) return SendText(response_, 400, message.error().message);
    std::string code = message->String("code");
    std::string id = message->String("contextId");
    Variables variables = message->StringMap("envVars");
    if (!message->Has("code")) return SendText(response_, 400, "'code' is missing");
    if (!message->error().empty()) return SendText(response_, 400, message->error());
    if (!id.empty() && message->Has("language")) {
      return SendText(response_, 400, "only one of context_id and language can be given");
    }
    Context* context = nullptr;
    if (id.empty()) {
      std::optional<Language> language = LanguageOf(*message, response_);
      if (!language) return;
      context = interpreter_->Default(*language);
    } else {
      context = interpreter_->Find(id);
      if (context == nullptr) return SendText(response_, 404, NoContext(id));
    }
    if (context->full()) {
      return SendText(response_, 503, "too many executions wait for this context");
    }
    response_->Start(200, {{"Content-Type", "application/x-ndjson"}, {"Cache-Control", "no-store"}},
                     std::nullopt);
    context_ = context;
    context->Execute(std::move(code), std::move(variables), this);
  }

  void OnDrained() override {
    if (context_ != nullptr) context_->Resume();
  }

 private:
  bool TakesMore() const override { return response_->HasRoom(); }
  void Write(std::string_view text) override { response_->Write(text); }
  void Finish() override {
    context_ = nullptr;
    response_->Finish();
  }
  void Abort() override {
    context_ = nullptr;
    response_->Abort();
  }

  Interpreter* interpreter_;
  Response* response_;
  std::string body_;
  MemoryBudget::Lease memory_;  // the code is kept until it has run
  Context* context_ = nullptr;  // while it has the execution
};

// A request about contexts, which may be answered only when a worker is ready.
class ContextHandler final : public Handler {
 public:
  using Use = std::function<void(ContextHandler* handler, const std::string& body)>;

  ContextHandler(Response* response, Use use)
      : response_(std::make_shared<Response*>(response)),
        use_(std::move(use)),
        memory_(response->memory()) {}
  ~ContextHandler() override { *response_ = nullptr; }

  void OnBody(std::string_view bytes) override {
    if (bytes.size() > kMaxContextBody - body_.size()) {
      SendText(*response_, 413, Format("the request is larger than %zu bytes", kMaxContextBody));
      return;
    }
    if (!memory_.Keep(body_.size() + bytes.size())) {
      return SendText(*response_, 503, (*response_)->memory()->Refusal());
    }
    body_ += bytes;
  }
  void OnBodyEnd() override { use_(this, body_); }

  Response* response() const { return *response_; }

  // Calls `answer` when the context is ready, if the client is still there. Answers itself if the
  // context cannot be started, after `failed`.
  void WhenReady(Context* context, std::function<void(Response*)> answer,
                 std::function<void()> failed = nullptr) {
    context->WhenReady([response = response_, answer = std::move(answer),
                        failed = std::move(failed)](const Status& status) {
      if (!status.ok() && failed) failed();
      if (*response == nullptr) return;
      if (status.ok()) {
        answer(*response);
      } else {
        SendText(*response, 500, status.error().message());
      }
    });
  }

 private:
  std::shared_ptr<Response*> response_;  // what it points to becomes null with the handler
  Use use_;
  std::string body_;
  MemoryBudget::Lease memory_;
};

std::unique_ptr<Handler> List(Interpreter* interpreter, Response* response) {
  JsonWriter json;
  json.BeginArray();
  for (Context* context : interpreter->All()) WriteContext(interpreter, context, &json);
  json.EndArray();
  return std::make_unique<ContextHandler>(
      response, [text = json](ContextHandler* handler, const std::string&) {
        SendJson(handler->response(), text);
      });
}

std::unique_ptr<Handler> Create(Interpreter* interpreter, Response* response) {
  auto create = [interpreter](ContextHandler* handler, const std::string& body) {
    Response* response = handler->response();
    Outcome<Message> message = Message::Parse(body);
    if (!message.ok()) return SendText(response, 400, message.error().message);
    std::string directory = message->String("cwd");
    std::optional<Language> language = LanguageOf(*message, response);
    if (!language) return;
    if (!message->error().empty()) return SendText(response, 400, message->error());
    if (directory.empty()) directory = interpreter->DefaultDirectory();
    Result<Context*> made = interpreter->Make(*language, std::move(directory));
    if (!made.ok()) return SendText(response, 400, made.error().message());
    const std::string id = (*made)->id();
    auto answer = [interpreter, id](Response* ready) {
      JsonWriter json;
      Context* context = interpreter->Find(id);
      if (context == nullptr) return SendText(ready, 404, NoContext(id));
      WriteContext(interpreter, context, &json);
      SendJson(ready, json);
    };
    // Nobody knows its name. Not at once: it is the context that says so.
    handler->WhenReady(*made, answer, [interpreter, id] {
      interpreter->loop()->Defer([interpreter, id] { interpreter->Remove(id); });
    });
  };
  return std::make_unique<ContextHandler>(response, create);
}

// /contexts/ID and /contexts/ID/restart.
std::unique_ptr<Handler> OfContext(Interpreter* interpreter, const Request& request,
                                   Response* response) {
  std::string_view id = std::string_view(request.path).substr(sizeof "/contexts/" - 1);
  constexpr std::string_view kRestart = "/restart";
  const bool restart = id.ends_with(kRestart);
  if (restart) id.remove_suffix(kRestart.size());
  const std::string_view method = restart ? "POST" : "DELETE";
  if (request.method != method) {
    return http::Answer(response, 405, {{"Allow", method}}, "");
  }
  auto use = [interpreter, restart, id = std::string(id)](ContextHandler* handler,
                                                          const std::string&) {
    Context* context = interpreter->Find(id);
    if (context == nullptr) return SendText(handler->response(), 404, NoContext(id));
    if (!restart) {
      interpreter->Remove(id);
      return handler->response()->Send(204, {}, "");
    }
    context->Restart();
    handler->WhenReady(context, [](Response* ready) { ready->Send(204, {}, ""); });
  };
  return std::make_unique<ContextHandler>(response, use);
}

}  // namespace

std::unique_ptr<Handler> Route(Interpreter* interpreter, const Request& request,
                               Response* response) {
  const std::string& path = request.path;
  const bool get = request.method == "GET";
  const bool post = request.method == "POST";
  if (path == "/health" && get) {
    return http::Answer(response, 200, {{"Content-Type", "text/plain"}}, "OK");
  }
  if (path == "/execute" && post) {
    const std::string& token = interpreter->access_token();
    const std::string* given = request.Field("x-access-token");
    if (!token.empty() && (given == nullptr || !envd::SameSecret(*given, token))) {
      return http::Answer(response, 401, {{"Content-Type", "text/plain"}},
                          "the X-Access-Token is missing or wrong");
    }
    return std::make_unique<ExecuteHandler>(interpreter, response);
  }
  if (path == "/contexts" && get) return List(interpreter, response);
  if (path == "/contexts" && post) return Create(interpreter, response);
  if (path.starts_with("/contexts/")) return OfContext(interpreter, request, response);
  return http::Answer(response, 404, {{"Content-Type", "text/plain"}}, "no such route");
}

}  // namespace cube::agent::interpreter
