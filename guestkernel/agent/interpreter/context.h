#ifndef CUBE_GUESTKERNEL_AGENT_INTERPRETER_CONTEXT_H_
#define CUBE_GUESTKERNEL_AGENT_INTERPRETER_CONTEXT_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "guestkernel/agent/interpreter/language.h"
#include "guestkernel/agent/interpreter/output_text.h"
#include "guestkernel/agent/interpreter/worker.h"
#include "guestkernel/agent/loop/event_loop.h"

namespace cube::agent::interpreter {

// Where the events of one execution go. Cancelled by Context::Cancel().
class Execution {
 public:
  virtual ~Execution() = default;
  // False while what was written has not left.
  virtual bool TakesMore() const = 0;
  // Lines of JSON, in pieces of any size.
  virtual void Write(std::string_view text) = 0;
  // The last call: all has been written, or nothing whole can be.
  virtual void Finish() = 0;
  virtual void Abort() = 0;
};

// What all contexts share.
class Surroundings {
 public:
  virtual ~Surroundings() = default;
  // Starts a worker with the ends of `pipes` that are its own, and gives its process id, 0 if it
  // will tell that itself.
  virtual Result<int32_t> Start(Language language, const std::string& directory,
                                WorkerPipes* pipes) = 0;
  // The variables that all executions have, and a number that changes with them and with the
  // machine's identity.
  virtual const Variables& environment() const = 0;
  virtual uint64_t identity() const = 0;
  virtual EventLoop* loop() const = 0;
  virtual std::span<char> scratch() const = 0;
};

// A context: a worker that keeps state from one execution to the next, and the executions that wait
// for it. A worker that has ended is started anew for the next of them. Of the loop's thread.
class Context final : public Worker::Client {
 public:
  // Executions that may wait.
  static constexpr size_t kMaxQueue = 256;
  using OnReadyCall = std::function<void(const Status& status)>;

  // `surroundings` outlives the context.
  Context(Surroundings* surroundings, std::string id, Language language, std::string directory);
  ~Context() override;  // aborts executions

  const std::string& id() const { return id_; }  // "" until it is given one
  void SetId(std::string id) { id_ = std::move(id); }
  Language language() const { return language_; }
  const std::string& directory() const { return directory_; }
  // False if no worker of it has ever come to be, and none is being started.
  bool exists() const { return was_ready_ || worker_ != nullptr; }

  // Starts the worker, if there is none, and calls `call` once it waits for requests, or cannot be
  // started. Not called if the context is destroyed before that.
  void WhenReady(OnReadyCall call);
  // Kills the worker and starts another. The running execution gets an error, those that wait go
  // on.
  void Restart();

  // Runs `code` after those before it. `execution` stays until its last call or Cancel().
  void Execute(std::string code, Variables variables, Execution* execution);
  // True if no more may wait.
  bool full() const { return queue_.size() >= kMaxQueue; }
  // Nobody is interested any more: does not run it, or interrupts it if it runs.
  void Cancel(Execution* execution);
  // The execution that runs takes more.
  void Resume();

 private:
  struct Job {
    std::string code;
    Variables variables;
    Execution* execution;
  };

  bool TakesMore() override;
  void OnReady(int32_t pid) override;
  void OnEnd() override;
  void OnEvents(std::string_view text) override;
  void OnOutput(Worker::Stream stream, std::string_view bytes) override;
  void OnGone() override;

  void StartWorker();
  void CannotStart(const Error& error);
  // Begins the next execution, if the worker waits for one.
  void Next();
  // Interrupts what runs and nobody waits for, and again after a while if that does not end it.
  void Interrupt(int times);
  // The running execution will get nothing more from its worker.
  void EndByError(std::string_view name, std::string_view value);
  void TellReady(const Status& status);

  Surroundings* surroundings_;
  std::string id_;
  Language language_;
  std::string directory_;
  std::unique_ptr<Worker> worker_;
  bool ready_ = false;  // the worker has started
  bool was_ready_ = false;
  bool running_ = false;   // it runs an execution
  uint64_t identity_ = 0;  // that the worker was told
  Variables environment_;  // that it was told
  EventLoop::TimerId interrupt_timer_ = EventLoop::kNoTimer;
  Execution* current_ = nullptr;  // that runs; null if it was cancelled
  std::deque<Job> queue_;
  std::vector<OnReadyCall> ready_calls_;
  OutputText texts_[Worker::kStreams] = {OutputText("stdout"), OutputText("stderr")};
};

}  // namespace cube::agent::interpreter

#endif  // CUBE_GUESTKERNEL_AGENT_INTERPRETER_CONTEXT_H_
