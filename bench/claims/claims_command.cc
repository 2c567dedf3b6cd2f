#include "bench/claims/claims_command.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "bench/claims/child.h"
#include "bench/claims/claims.h"
#include "bench/report/comparison.h"
#include "bench/report/html_page.h"
#include "bench/report/text_table.h"

namespace cube::bench {
namespace {

namespace fs = std::filesystem;

struct ClaimsWords {
  TrialOptions options;
  std::string folder = ".";
  double minutes = 10, per_second = 5;  // of churn
};

struct CompareWords {
  std::string before, after;
  double least_percent = 5;
  bool all = false;
};

int Fail(const std::string& what) {
  fprintf(stderr, "cube-bench: %s\n", what.c_str());
  return 1;
}

std::string Home() {
  const char* home = getenv("CUBE_HOME");
  return home == nullptr || *home == '\0' ? "/var/lib/cube" : home;
}

// A program beside this one, or the one in $PATH.
std::string BesideThisOne(const char* name) {
  std::error_code failed;
  fs::path beside = fs::read_symlink("/proc/self/exe", failed).parent_path() / name;
  return !failed && access(beside.c_str(), X_OK) == 0 ? beside.string() : name;
}

Status Write(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  return out ? OkStatus() : Status(ErrnoError("%s", path.c_str()));
}

Result<Report> ReadReport(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return ErrnoError("%s", path.c_str());
  std::string text(Report::kMaxBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  auto report = Report::Parse(text);
  if (!report.ok()) return Errorf("%s: %s", path.c_str(), report.error().message().c_str());
  return report;
}

int Publish(const ClaimsWords& words, const char* name, const Result<Report>& report) {
  if (!report.ok()) return Fail(report.error().message());
  printf("%s", ReportAsText(report.value()).c_str());
  const std::string path = words.folder + "/" + name;
  for (const auto& [file, text] : {std::pair(path + ".json", report.value().ToJson()),
                                   std::pair(path + ".html", HtmlPage(report.value()))}) {
    Status written = Write(file, text);
    if (!written.ok()) return Fail(written.error().message());
    printf("%s\n", file.c_str());
  }
  return 0;
}

// Whether what is needed is there.
Status Check(const TrialOptions& options) {
  for (const std::string& file :
       {options.kernel, options.initrd, options.boot_initrd, options.rootfs}) {
    if (access(file.c_str(), R_OK) != 0) {
      return ErrnoError("%s (tools/claims.sh makes it)", file.c_str());
    }
  }
  return OkStatus();
}

int Claims(const ClaimsWords& words) {
  Status good = Check(words.options);
  if (!good.ok()) return Fail(good.error().message());
  return Publish(words, "report", RunClaims(words.options));
}

int Api(const ClaimsWords& words) {
  Status good = Check(words.options);
  if (!good.ok()) return Fail(good.error().message());
  return Publish(words, "api", RunApi(words.options));
}

int ChurnFor(const ClaimsWords& words) {
  Status good = Check(words.options);
  if (!good.ok()) return Fail(good.error().message());
  return Publish(words, "churn", RunChurn(words.options, words.minutes, words.per_second));
}

int CompareReports(const CompareWords& words) {
  auto before = ReadReport(words.before);
  if (!before.ok()) return Fail(before.error().message());
  auto after = ReadReport(words.after);
  if (!after.ok()) return Fail(after.error().message());
  for (const std::string& one : DifferencesOfMachines(*before, *after)) {
    printf("another machine: %s\n", one.c_str());
  }
  auto compared = Compare(*before, *after, words.least_percent / 100);
  printf("%s", ComparisonAsText(compared, words.all).c_str());
  for (const Compared& one : compared) {
    if (one.change == Change::kWorse) return 3;
  }
  return 0;
}

// What both commands take.
void AddOptions(CLI::App* command, ClaimsWords* words) {
  TrialOptions& options = words->options;
  const std::string images = Home() + "/images/";
  options.vmm = BesideThisOne("cube-vmm");
  options.cubed = BesideThisOne("cubed");
  if (std::string fabric = BesideThisOne("fabric"); fabric.find('/') != std::string::npos) {
    options.fabric = fabric;
  }
  options.kernel = images + "vmlinux";
  options.initrd = images + "agent-initramfs.cpio";
  options.boot_initrd = images + "initramfs.cpio";
  options.rootfs = images + "code.ext4";
  options.bzimage = images + "bzImage";
  command->add_option("--out", words->folder, "folder for the reports")->capture_default_str();
  command->add_option("--memory", options.memory_mib, "MiB of each guest")->capture_default_str();
  command->add_option("--work", options.work_folder, "where the run's own files are, on a disk")
      ->capture_default_str();
  command->add_flag("--no-jail", options.no_jail, "machines without a jail");
  for (const auto& [name, to] : {std::pair<const char*, std::string*>{"--vmm", &options.vmm},
                                 {"--cubed", &options.cubed},
                                 {"--kernel", &options.kernel},
                                 {"--initrd", &options.initrd},
                                 {"--boot-initrd", &options.boot_initrd},
                                 {"--rootfs", &options.rootfs},
                                 {"--bzimage", &options.bzimage},
                                 {"--fabric", &options.fabric}}) {
    command->add_option(name, *to)->capture_default_str();
  }
}

}  // namespace

void AddClaimsCommands(CLI::App* app, int* status) {
  auto claims = std::make_shared<ClaimsWords>();
  CLI::App* command = app->add_subcommand(
      "claims",
      "measures this product's claims on this machine: a table, report.json, report.html");
  AddOptions(command, claims.get());
  command->add_flag("--full", claims->options.is_full, "more rounds, more memory written");
  command->callback([claims, status] { *status = Claims(*claims); });

  auto api = std::make_shared<ClaimsWords>();
  command = app->add_subcommand(
      "api", "what HTTP costs: creates, the proxy, lists, the least request: api.json, api.html");
  AddOptions(command, api.get());
  command->add_flag("--full", api->options.is_full, "more rounds");
  command->callback([api, status] { *status = Api(*api); });

  auto churn = std::make_shared<ClaimsWords>();
  command = app->add_subcommand(
      "churn", "creates, runs and kills at a rate, and how that drifts: churn.json, churn.html");
  AddOptions(command, churn.get());
  command->add_option("--minutes", churn->minutes)
      ->check(CLI::Range(0.1, 10'000.0))
      ->capture_default_str();
  command->add_option("--rate", churn->per_second, "creates a second")
      ->check(CLI::Range(0.1, 1000.0))
      ->capture_default_str();
  command->callback([churn, status] { *status = ChurnFor(*churn); });

  auto compare = std::make_shared<CompareWords>();
  command = app->add_subcommand(
      "compare", "what changed between two reports; ends with 3 if anything became worse");
  command->add_option("before", compare->before, "report.json")->required();
  command->add_option("after", compare->after, "report.json")->required();
  command->add_option("--least", compare->least_percent, "percent that count as a change")
      ->check(CLI::Range(0.0, 1000.0))
      ->capture_default_str();
  command->add_flag("--all", compare->all, "what is the same, too");
  command->callback([compare, status] { *status = CompareReports(*compare); });
}

}  // namespace cube::bench
