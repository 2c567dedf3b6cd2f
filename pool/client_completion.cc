#include "pool/client_completion.h"

#include <vector>

namespace cube::pool {
namespace {

// A place on the command line: the commands so far, and what may follow.
struct Place {
  std::string path;    // "", "sandbox", "sandbox exec"
  std::string words;   // with a space between two
  std::string listed;  // the command whose first column may follow as well; or empty
};

void Collect(const CLI::App& app, const std::string& path, std::vector<Place>* places) {
  Place place = {path, "", ""};
  auto add = [&](const std::string& word) {
    place.words += (place.words.empty() ? "" : " ") + word;
  };
  auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* command : commands) {
    if (!command->get_name().empty()) add(command->get_name());
  }
  bool takes_id = false;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) add("--" + name);
    takes_id = takes_id || option->get_name(true) == "id" || option->get_name(true) == "from";
  }
  size_t end = path.find(' ');
  if (takes_id && end != std::string::npos) place.listed = "cube " + path.substr(0, end) + " ls";
  // What cube's own options are is said once, at its beginning; they are valid everywhere.
  places->push_back(std::move(place));
  for (const CLI::App* command : commands) {
    if (command->get_name().empty()) continue;
    Collect(*command, path.empty() ? command->get_name() : path + " " + command->get_name(),
            places);
  }
}

std::string Ids(const Place& place) {
  return place.listed.empty() ? ""
                              : "$(" + place.listed + " 2>/dev/null | awk 'NR > 1 {print $1}')";
}

// `which`: how the shell calls the words; those from `first` to before `last` lead to a place.
std::string PathLoop(const std::vector<Place>& places, const char* which, const char* first,
                     const char* last) {
  std::string text = std::string("  local at='' i\n  for ((i = ") + first + "; i < " + last +
                     "; i++)); do\n    case \"${at:+$at }${" + which + "[i]}\" in\n      ";
  bool is_first = true;
  for (const Place& place : places) {
    if (place.path.empty()) continue;
    text += (is_first ? "'" : " | '") + place.path + "'";
    is_first = false;
  }
  return text + std::string(") at=\"${at:+$at }${") + which + "[i]}\" ;;\n    esac\n  done\n";
}

std::string Bash(const std::vector<Place>& places) {
  std::string text = "_cube() {\n  local words=''\n" +
                     PathLoop(places, "COMP_WORDS", "1", "COMP_CWORD") + "  case \"$at\" in\n";
  for (const Place& place : places) {
    text += "    '" + place.path + "') words=\"" + place.words + " " + Ids(place) + "\" ;;\n";
  }
  return text +
         "  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n}\n"
         "complete -o default -F _cube cube\n";
}

std::string Zsh(const std::vector<Place>& places) {
  std::string text = "#compdef cube\n_cube() {\n  local -a found\n" +
                     PathLoop(places, "words", "2", "CURRENT") + "  case \"$at\" in\n";
  for (const Place& place : places) {
    text += "    '" + place.path + "') found=(" + place.words + " " + Ids(place) + ") ;;\n";
  }
  return text + "  esac\n  compadd -a found || _files\n}\ncompdef _cube cube\n";
}

std::string Fish(const std::vector<Place>& places) {
  std::string text =
      "function __cube_at\n  set -l at\n  for word in (commandline -opc)[2..]\n"
      "    switch \"$at $word\"\n      case";
  for (const Place& place : places) {
    if (!place.path.empty()) text += " ' " + place.path + "'";
  }
  text +=
      "\n        set at \"$at $word\"\n    end\n  end\n  test \"$at\" = \"$argv[1]\"\nend\n"
      "complete -c cube -e\n";
  for (const Place& place : places) {
    std::string at = place.path.empty() ? "" : " " + place.path;
    std::string words = place.words;
    if (!place.listed.empty()) {
      words += " (" + place.listed + " 2>/dev/null | awk \"NR > 1 {print \\$1}\")";
    }
    text += "complete -c cube -n '__cube_at \"" + at + "\"' -a '" + words + "'\n";
  }
  return text;
}

}  // namespace

std::string CompletionScript(const CLI::App& app, const std::string& shell) {
  std::vector<Place> places;
  Collect(app, "", &places);
  if (shell == "bash") return Bash(places);
  return shell == "zsh" ? Zsh(places) : Fish(places);
}

}  // namespace cube::pool
