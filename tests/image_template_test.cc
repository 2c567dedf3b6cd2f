// `cube-vmm template build --image`: a container image, made by the test, as the root disk of
// clones.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "templates/testing/tar_writer.h"
#include "tests/busybox_image.h"
#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

class ImageTemplateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    top_ = ::testing::TempDir() + "/image-template";
    home_ = top_ + "/home";
    fs::remove_all(top_);
    ASSERT_EQ(setenv("CUBE_HOME", home_.c_str(), 1), 0);
  }
  static std::vector<std::string> BuildWords(const std::string& name, const std::string& image,
                                             std::vector<std::string> more = {}) {
    std::vector<std::string> words = {
        Env("CUBE_VMM"),    "template", "build",           name, "--image", image, "--kernel",
        Env("CUBE_KERNEL"), "--initrd", Env("CUBE_INITRD")};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  static Finished Vmm(std::vector<std::string> words) {
    words.insert(words.begin(), Env("CUBE_VMM"));
    return RunProcess(words);
  }
  static bool Has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }
  // A build that failed has left neither a template nor anything it was at.
  void ExpectNothingLeft() {
    EXPECT_TRUE(!fs::exists(home_ + "/templates") || fs::is_empty(home_ + "/templates"));
    EXPECT_TRUE(!fs::exists(home_ + "/builds/work") || fs::is_empty(home_ + "/builds/work"));
  }
  std::string top_, home_;
};

TEST_F(ImageTemplateTest, ClonesRunWhatTheImageHolds) {
  templates::testing::WriteFile(top_ + "/save.tar", templates::testing::DockerArchive(
                                                        BusyboxLayers(), kBusyboxConfig, "bb:1"));
  Finished built = RunProcess(BuildWords("bb", top_ + "/save.tar"));
  ASSERT_EQ(built.status, 0) << built.err;
  EXPECT_EQ(built.out, home_ + "/templates/bb\n");
  EXPECT_TRUE(Has(built.err, "[1/2] image " + top_ + "/save.tar\n")) << built.err;
  Finished inspected = Vmm({"template", "inspect", "bb", "--json"});
  EXPECT_TRUE(Has(inspected.out,
                  "\"defaults\":{\"environment\":[\"PATH=/bin\",\"GREETING=hello there\"],"
                  "\"directory\":\"/srv\",\"user\":\"app\",\"entrypoint\":[\"/bin/echo\",\"own\"],"
                  "\"command\":[\"command\"]}"))
      << inspected.out;
  Finished clone = Vmm({"clone", "bb", "--", "sh", "-c",
                        "id; pwd; echo $GREETING $HOME; ls; ls old; cat link; "
                        "stat -c '%a %u:%g' data /home/app; cat /etc/hosts /proc/1/mounts"});
  EXPECT_EQ(clone.status, 0) << clone.err;
  EXPECT_TRUE(
      clone.out.starts_with("uid=1000(app) gid=1000(app) groups=50(web)\n/srv\n"
                            "hello there /home/app\ndata\nlink\nold\nnew\ndata\n"
                            "600 1000:1000\n700 1000:1000\n127.0.0.1 localhost\n"))
      << clone.out;
  // The command line goes before the image, and an image's own command is there when it is asked
  // for.
  clone = Vmm({"clone", "bb", "-u", "root", "-w", "/", "-e", "GREETING=x", "--", "sh", "-c",
               "id; pwd; echo $GREETING $HOME; touch /new && ls /new"});
  EXPECT_EQ(clone.out, "uid=0(root) gid=0(root)\n/\nx /root\n/new\n") << clone.err;
  EXPECT_EQ(Vmm({"clone", "bb", "--own-command"}).out, "own command\n");
  EXPECT_EQ(Vmm({"clone", "bb", "--own-command", "--", "words"}).out, "own words\n");
  EXPECT_EQ(Vmm({"clone", "bb", "--", "nonesuch"}).status, 127);
  Finished nobody = Vmm({"clone", "bb", "-u", "nobody", "--", "id"});
  EXPECT_EQ(nobody.status, 125);
  EXPECT_TRUE(Has(nobody.err, "there is no user \"nobody\"")) << nobody.err;

  // The same image in another form, with other words: the disk is made anew, since nothing says
  // that it is the same; the second time it is there.
  templates::testing::WriteOciLayout(top_ + "/oci", BusyboxLayers(), kBusyboxConfig, true);
  for (const char* name : {"first", "second"}) {
    built = RunProcess(BuildWords(name, top_ + "/oci",
                                  {"--json", "-e", "A=1", "-w", "/home", "-u", "root",
                                   "--disk-size", "64M", "--", "/bin/pwd"}));
    ASSERT_EQ(built.status, 0) << built.out;
    EXPECT_TRUE(
        Has(built.out, std::string("\"number\":1,\"cached\":") + (*name == 'f' ? "false" : "true")))
        << built.out;
    EXPECT_TRUE(Has(built.out, "{\"ok\":true,\"name\":\"" + std::string(name))) << built.out;
    EXPECT_EQ(Vmm({"clone", name, "--own-command"}).out, "/home\n");
    EXPECT_EQ(Vmm({"clone", name, "--", "sh", "-c", "echo $A $GREETING"}).out, "1 hello there\n");
  }
  Finished again = RunProcess(BuildWords("bb", top_ + "/oci"));
  EXPECT_EQ(again.status, 125);
  EXPECT_EQ(again.err, "cube-vmm: there is a template \"bb\" already\n");
}

TEST_F(ImageTemplateTest, WhatCannotBeBuiltIsOneReason) {
  const std::string oci = top_ + "/oci";
  templates::testing::WriteOciLayout(oci, BusyboxLayers(), kBusyboxConfig, false);
  fs::create_directories(home_ + "/builds/locks");
  auto reason = [&](std::vector<std::string> words) {
    words.push_back("--json");
    Finished run = RunProcess(words);
    EXPECT_EQ(run.status, 125);
    ExpectNothingLeft();
    size_t at = run.out.find("{\"ok\":false");
    return at == std::string::npos ? run.out + run.err : run.out.substr(at);
  };
  EXPECT_TRUE(Has(reason(BuildWords("x", "/nowhere")), "/nowhere: No such file"));
  EXPECT_TRUE(Has(reason(BuildWords("../x", oci)), "cannot be a template's name"));
  EXPECT_TRUE(Has(reason(BuildWords("x", oci, {"--image-name", "y"})), "only latest"));
  EXPECT_TRUE(Has(reason(BuildWords("x", oci, {"--disk-size", "1K"})), "not a number with M or G"));
  EXPECT_TRUE(Has(reason(BuildWords("x", oci, {"--timeout", "0.01"})), "time limit of 0.01 s"));
  EXPECT_TRUE(Has(reason(BuildWords("x", oci, {"-e", "A"})), "is not NAME=VALUE"));
  int held = open((home_ + "/builds/locks/x").c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(flock(held, LOCK_EX), 0);
  EXPECT_TRUE(Has(reason(BuildWords("x", oci)), "is being built by another process"));
  close(held);
  // One byte of a layer is another.
  const std::string layer =
      oci + "/blobs/sha256/" + templates::testing::Sha256Of(BusyboxLayers()[1]);
  std::fstream file(layer, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(1000).put('!');
  file.close();
  fs::remove_all(home_ + "/builds/images");
  EXPECT_TRUE(Has(reason(BuildWords("x", oci)), "does not have its digest"));
  std::ifstream log(home_ + "/builds/logs/x.log");
  std::string text{std::istreambuf_iterator<char>(log), {}};
  EXPECT_TRUE(Has(text, "failed: ")) << text;
}

TEST_F(ImageTemplateTest, AnInterruptedBuildLeavesNothing) {
  templates::testing::WriteOciLayout(top_ + "/oci", BusyboxLayers(), kBusyboxConfig, true);
  Process build(BuildWords("x", top_ + "/oci"));
  build.WaitForError("[2/2]");
  kill(build.pid(), SIGTERM);
  Finished ended = build.Finish();
  EXPECT_EQ(ended.status, 125);
  EXPECT_TRUE(Has(ended.err, "interrupted by signal 15")) << ended.err;
  ExpectNothingLeft();
  // One that was killed leaves what the next one deletes.
  Process killed(BuildWords("x", top_ + "/oci"));
  killed.WaitForError("[2/2]");
  kill(killed.pid(), SIGKILL);
  killed.Finish();
  Finished built;
  do {  // what it had started dies after it
    built = RunProcess(BuildWords("x", top_ + "/oci"));
  } while (Has(built.err, "is being built by another process"));
  EXPECT_EQ(built.status, 0) << built.err;
  EXPECT_TRUE(fs::is_empty(home_ + "/builds/work"));
  EXPECT_EQ(std::distance(fs::directory_iterator(home_ + "/templates"), {}), 1);
}

}  // namespace
}  // namespace cube::testing
