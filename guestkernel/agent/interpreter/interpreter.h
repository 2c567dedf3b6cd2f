#ifndef CUBE_GUESTKERNEL_AGENT_INTERPRETER_INTERPRETER_H_
#define CUBE_GUESTKERNEL_AGENT_INTERPRETER_INTERPRETER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "guestkernel/agent/envd/context.h"
#include "guestkernel/agent/interpreter/context.h"
#include "guestkernel/agent/interpreter/language.h"
#include "guestkernel/agent/interpreter/python_zygote.h"

namespace cube::agent::interpreter {

// All contexts of the machine and what they need: how workers of each language are started, as whom
// and with which variables. Of the loop's thread.
class Interpreter final : public Surroundings {
 public:
  static constexpr size_t kMaxContexts = 64;

  // `machine` outlives the interpreter. `folder` is where the workers' programs are put when they
  // are needed first.
  Interpreter(envd::Context* machine, std::string folder);

  // Whether the machine has what a language needs; an error that names it.
  static Status CanRun(Language language);

  // The context of a language that those who name none run in. Made when first asked for.
  Context* Default(Language language);
  // Null if there is none.
  Context* Find(std::string_view id);
  // A new one; its worker is started when it is first needed. An error if there are too many or the
  // directory is none.
  Result<Context*> Make(Language language, std::string directory);
  // False if there is none.
  bool Remove(std::string_view id);
  // Ends Python's default context and the zygote, of which nothing has come.
  void GiveUpPython();
  // Those that have been started, or are being started.
  std::vector<Context*> All();

  // Contexts are named once a clone knows who it is, lest all clones name one the same.
  std::string Id(Context* context);
  // Where contexts start that are not given a directory.
  std::string DefaultDirectory() const;

  // Whether workers are started for copies of this machine, and not for a client who waits.
  void set_warming(bool warming) { warming_ = warming; }

  // Workers may be copies of others from now on.
  void TakeIdentity() { ++identity_; }

  // See Surroundings.
  Result<int32_t> Start(Language language, const std::string& directory,
                        WorkerPipes* pipes) override;
  const Variables& environment() const override { return machine_->settings.environment; }
  uint64_t identity() const override { return identity_; }
  EventLoop* loop() const override { return machine_->loop; }
  std::span<char> scratch() const override { return machine_->scratch; }

  // Who asks has to be let in.
  const std::string& access_token() const { return machine_->settings.access_token; }

 private:
  // Starts a program as the interpreter's user. Its control socket is its stdin.
  Result<pid_t> Launch(std::vector<std::string> arguments, const std::string& directory,
                       int control, int output, int error);
  Result<pid_t> LaunchZygote(int control);

  envd::Context* machine_;
  std::string folder_;
  bool installed_ = false;
  bool warming_ = false;
  PythonZygote zygote_;
  uint64_t identity_ = 1;
  std::vector<std::unique_ptr<Context>> contexts_;
  std::map<Language, Context*> defaults_;
};

}  // namespace cube::agent::interpreter

#endif  // CUBE_GUESTKERNEL_AGENT_INTERPRETER_INTERPRETER_H_
