#include "api/build_steps.h"

#include <algorithm>

#include "base/json_writer.h"

namespace cube::api {
namespace {

using pool::Done;
using pool::Fault;
using pool::Outcome;
using pool::Refuse;

constexpr uint32_t kReadySeconds = 600;

bool IsPlain(const std::string& text, const char* others) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](unsigned char c) {
    return isalnum(c) != 0 ||
           std::string_view(others).find(static_cast<char>(c)) != std::string_view::npos;
  });
}

// As one word that no variable is put into.
std::string Literal(const std::string& text) {
  std::string word;
  for (char c : text) {
    if (c == '$') word += '\\';
    word += c;
  }
  return word;
}

// A program and its arguments, in one line whatever is in them.
std::string Array(const std::vector<std::string>& words) {
  JsonWriter json;
  json.BeginArray();
  for (const std::string& word : words) json.String(word);
  return json.EndArray().text();
}

std::string Shell(const std::string& command) { return Array({"/bin/bash", "-l", "-c", command}); }

// In quotes in which variables are put in.
Outcome<std::string> Quoted(const std::string& text) {
  std::string word = "\"";
  for (char c : text) {
    if (c == '\n' || c == '\r') {
      return Refuse(Fault::kInvalid, "a value of ENV, or a folder, has more than one line");
    }
    if (c == '"' || c == '\\') word += '\\';
    word += c;
  }
  return word + "\"";
}

class Writer {
 public:
  explicit Writer(const BuildPlan& plan) : plan_(plan) {}

  Outcome<StepsFile> Write() {
    POOL_TRY(CheckUser(plan_.user));
    Line("FROM " + plan_.from, "base");
    user_ = plan_.user;
    Line("USER " + user_, "base");
    POOL_ASSIGN(std::string folder, Quoted(plan_.workdir));
    Line("WORKDIR " + folder, "base");
    for (size_t i = 0; i < plan_.steps.size(); ++i) {
      number_ = std::to_string(i + 1);
      auto written = Step(plan_.steps[i]);
      if (!written.ok()) {
        return Refuse(written.refusal().fault, "step %s: %.800s", number_.c_str(),
                      written.refusal().message.c_str());
      }
    }
    if (!plan_.start_command.empty()) {
      Line("START " + Shell(plan_.start_command), "finalize");
      if (!plan_.ready_command.empty()) {
        Line("READY --timeout=" + std::to_string(kReadySeconds) + " " + Shell(plan_.ready_command),
             "finalize");
      }
    } else if (!plan_.ready_command.empty()) {
      // There is nothing to wait for but what the command itself does.
      Line("START " + Shell("exec sleep infinity"), "finalize");
      Line("READY --timeout=" + std::to_string(kReadySeconds) + " " + Shell(plan_.ready_command),
           "finalize");
    }
    return std::move(file_);
  }

 private:
  void Line(const std::string& text, const std::string& step) {
    file_.text += text + "\n";
    file_.step_of.push_back(step);
  }

  static Outcome<Done> CheckUser(const std::string& user) {
    if (user.size() <= 64 && IsPlain(user, "-_.:")) return Done();
    return Refuse(Fault::kInvalid, "\"%.64s\" is not a user's name", user.c_str());
  }

  Outcome<Done> Step(const TemplateStep& step) {
    auto arg = [&](size_t i) { return i < step.args.size() ? step.args[i] : std::string(); };
    if (step.type == "RUN") {
      if (arg(0).empty()) return Refuse(Fault::kInvalid, "RUN has no command");
      return As(arg(1), "RUN " + Shell(arg(0)));
    }
    if (step.type == "COPY") return Copy(step, arg(0), arg(1), arg(2), arg(3));
    if (step.type == "WORKDIR") {
      if (arg(0).empty()) return Refuse(Fault::kInvalid, "WORKDIR has no folder");
      POOL_ASSIGN(std::string folder, Quoted(arg(0)));
      Line("WORKDIR " + folder, number_);
      return Done();
    }
    if (step.type == "USER") {
      POOL_TRY(CheckUser(arg(0)));
      std::string make =
          "id -u " + arg(0) + " >/dev/null 2>&1 || useradd -m -s /bin/bash " + arg(0);
      if (arg(1) == "true") {
        make += "; mkdir -p /etc/sudoers.d && echo '" + arg(0) +
                " ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/" + arg(0);
      }
      if (arg(0) != "root") POOL_TRY(As("root", "RUN " + Shell(make)));
      user_ = arg(0);
      Line("USER " + user_, number_);
      return Done();
    }
    if (step.type == "ENV") {
      if (step.args.empty() || step.args.size() % 2 != 0) {
        return Refuse(Fault::kInvalid, "ENV has not pairs of a name and a value");
      }
      // One after another: a value may name those before it.
      for (size_t i = 0; i < step.args.size(); i += 2) {
        if (!IsPlain(step.args[i], "_") || isdigit(static_cast<unsigned char>(step.args[i][0]))) {
          return Refuse(Fault::kInvalid, "\"%.64s\" is not a variable's name",
                        step.args[i].c_str());
        }
        POOL_ASSIGN(std::string value, Quoted(step.args[i + 1]));
        Line("ENV " + step.args[i] + "=" + value, number_);
      }
      return Done();
    }
    return Refuse(Fault::kInvalid, "\"%.64s\" is not RUN, COPY, WORKDIR, USER or ENV",
                  step.type.c_str());
  }

  // One line as another user.
  Outcome<Done> As(const std::string& user, const std::string& line) {
    bool changes = !user.empty() && user != user_;
    if (changes) {
      POOL_TRY(CheckUser(user));
      Line("USER " + user, number_);
    }
    Line(line, number_);
    if (changes) Line("USER " + user_, number_);
    return Done();
  }

  Outcome<Done> Copy(const TemplateStep& step, const std::string& source, const std::string& to,
                     const std::string& owner, const std::string& mode) {
    if (!IsFilesHash(step.files_hash)) {
      return Refuse(Fault::kInvalid, "COPY has no filesHash of 64 hexadecimal digits");
    }
    if (source.empty() || to.empty()) return Refuse(Fault::kInvalid, "COPY has no two paths");
    std::string line = "COPY";
    const std::string& user = owner.empty() ? user_ : owner;
    POOL_TRY(CheckUser(user));
    line += " --chown=" + user;
    if (!mode.empty()) {
      std::string octal = mode.substr(std::min(mode.find_first_not_of('0'), mode.size() - 1));
      if (octal.size() > 4 || octal.find_first_not_of("01234567") != std::string::npos) {
        return Refuse(Fault::kInvalid, "\"%.20s\" is not a mode of octal digits", mode.c_str());
      }
      line += " --chmod=" + octal;
    }
    line += " " + Array({Literal(step.files_hash + "/" + source), Literal(to)});
    Line(line, number_);
    return Done();
  }

  const BuildPlan& plan_;
  StepsFile file_;
  std::string user_, number_;
};

}  // namespace

bool IsFilesHash(const std::string& text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

pool::Outcome<StepsFile> WriteSteps(const BuildPlan& plan) { return Writer(plan).Write(); }

}  // namespace cube::api
