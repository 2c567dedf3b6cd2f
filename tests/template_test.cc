// `cube-vmm template`: made by name, listed, looked into, deleted unless somebody needs it.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tests/await.h"
#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;

class TemplateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    home_ = ::testing::TempDir() + "/template-home";
    ASSERT_EQ(setenv("CUBE_HOME", home_.c_str(), 1), 0);
  }
  static Finished Template(std::vector<std::string> words) {
    words.insert(words.begin(), {Env("CUBE_VMM"), "template"});
    return RunProcess(words);
  }
  static Finished Build(const std::string& name, std::vector<std::string> more = {}) {
    std::vector<std::string> words = {
        "build", name, "--kernel", Env("CUBE_KERNEL"), "--initrd", Env("CUBE_INITRD")};
    words.insert(words.end(), more.begin(), more.end());
    return Template(words);
  }
  static Finished Vmm(std::vector<std::string> words) {
    words.insert(words.begin(), Env("CUBE_VMM"));
    return RunProcess(words);
  }
  static bool Has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }
  std::string Folder(const std::string& name) const { return home_ + "/templates/" + name; }

  std::string home_;
};

TEST_F(TemplateTest, IsBuiltListedInspectedClonedAndDeleted) {
  fs::remove_all(home_);
  Finished built = Build("warm", {"--memory", "160", "--cpus", "2", "--json"});
  ASSERT_EQ(built.status, 0) << built.err << built.out;
  EXPECT_TRUE(Has(built.out, "{\"ok\":true,\"name\":\"warm\",\"path\":\"" + Folder("warm")))
      << built.out;
  Finished again = Build("warm");
  EXPECT_EQ(again.status, 125);
  EXPECT_EQ(again.err, "cube-vmm: there is a template \"warm\" already\n");
  // What run makes for itself is one as well.
  ASSERT_EQ(RunProcess(CloneVmm({}, {"/bin/true"})).status, 0);

  Finished list = Template({"list"});
  EXPECT_EQ(std::count(list.out.begin(), list.out.end(), '\n'), 3) << list.out;
  EXPECT_TRUE(Has(list.out, "run-"));
  Finished json = Template({"list", "--json"});
  EXPECT_TRUE(Has(json.out, "\"memory_mib\":160,\"cpus\":2")) << json.out;
  EXPECT_TRUE(Has(json.out, "\"parent\":\"\"")) << json.out;

  Finished inspected = Template({"inspect", "warm", "--json"});
  EXPECT_EQ(inspected.status, 0) << inspected.err;
  EXPECT_TRUE(Has(inspected.out, "\"restorable\":true")) << inspected.out;
  EXPECT_TRUE(Has(inspected.out, "{\"name\":\"vcpu\",\"number\":1,")) << inspected.out;
  EXPECT_TRUE(Has(Template({"inspect", Folder("warm")}).out, "can be restored"));

  Finished clone = Vmm({"clone", "warm", "--", "/bin/sh", "-c", "nproc"});
  EXPECT_EQ(clone.out, "2\n") << clone.err;
  // Two clones of one template are told apart by their names.
  std::string names[2];
  for (std::string& name : names) {
    name =
        Vmm({"clone", "warm", "--", "/bin/sh", "-c",
             "hostname; echo $CUBE_SANDBOX_ID; grep -c \"^127.0.1.1 $(hostname) *$\" /etc/hosts"})
            .out;
    EXPECT_EQ(name.substr(0, 5), "cube-");
    EXPECT_EQ(name.substr(5, 8), name.substr(14, 8)) << name;
    EXPECT_EQ(name.substr(name.size() - 2), "1\n") << name;
  }
  EXPECT_NE(names[0], names[1]);
  EXPECT_EQ(Template({"rm", "warm"}).status, 0);
  EXPECT_FALSE(fs::exists(Folder("warm")));
  EXPECT_EQ(Template({"rm", "warm"}).err,
            "cube-vmm: there is no template \"warm\" in " + home_ + "/templates\n");
  EXPECT_EQ(Vmm({"clone", "warm", "--", "/bin/true"}).status, 125);
  // Nothing is left of it.
  EXPECT_EQ(std::distance(fs::directory_iterator(home_ + "/templates"), {}), 1);
}

TEST_F(TemplateTest, IsKeptWhileSomebodyNeedsIt) {
  fs::remove_all(home_);
  ASSERT_EQ(Build("needed").status, 0);
  {
    Process clone({Env("CUBE_VMM"), "clone", "needed"});
    std::string id = clone.ReadLine();
    Finished refused = Template({"rm", "needed"});
    EXPECT_EQ(refused.status, 125);
    EXPECT_TRUE(Has(refused.err, "is in use by a running sandbox")) << refused.err;
    // Its lock is also a lock of the sandbox's children, which outlive it.
    ASSERT_EQ(Vmm({"fork", id}).status, 0);
    fs::create_directories(home_ + "/snapshots");
    ASSERT_EQ(Vmm({"snapshot", id, home_ + "/snapshots/child", "--diff"}).status, 0);
    EXPECT_EQ(Vmm({"stop", id}).status, 0);
    clone.Finish();
    for (const auto& entry : fs::directory_iterator(home_ + "/run")) {
      std::string child = entry.path().stem().string();
      if (child == id || entry.path().extension() != ".sock") continue;
      refused = Template({"rm", "needed", "--json"});
      EXPECT_TRUE(Has(refused.out, "{\"ok\":false,\"error\":")) << refused.out;
      EXPECT_EQ(Vmm({"stop", child}).status, 0);
      AwaitGone(entry.path());
    }
  }
  Finished refused = Template({"rm", "needed"});
  EXPECT_TRUE(Has(refused.err, "is what " + home_ + "/snapshots/child builds on")) << refused.err;
  EXPECT_EQ(Template({"rm", "needed", "--force"}).status, 0);
  EXPECT_FALSE(fs::exists(Folder("needed")));
  EXPECT_EQ(Vmm({"restore", home_ + "/snapshots/child"}).status, 125);
}

TEST_F(TemplateTest, NamesThatAreNoNames) {
  fs::remove_all(home_);
  fs::create_directories(home_ + "/templates");
  fs::create_directories(home_ + "/outside");
  fs::create_symlink("../outside", Folder("link"));
  for (const char* name :
       {"", ".", "..", "../outside", "a/b", "-x", ".hidden", "a b", "a\nb", "\xc3\xa9", "/etc"}) {
    SCOPED_TRACE(name);
    for (Finished run :
         {Build(name), Template({"rm", "--", name}), Template({"rm", "--force", "--", name})}) {
      EXPECT_EQ(run.status, 125);
      EXPECT_EQ(std::count(run.err.begin(), run.err.end(), '\n'), 1) << run.err;
    }
  }
  EXPECT_EQ(Build(std::string(65, 'a')).status, 125);
  EXPECT_EQ(Template({"rm", "link", "--force"}).status, 125);
  EXPECT_TRUE(fs::exists(home_ + "/outside"));
  EXPECT_EQ(Vmm({"clone", "link"}).status, 125);
  EXPECT_EQ(Vmm({"zygote", "none", "--socket", home_ + "/s"}).status, 125);
}

TEST_F(TemplateTest, WhatIsDamagedIsListedAsThatAndCanBeDeleted) {
  fs::remove_all(home_);
  fs::create_directories(Folder("broken"));
  std::ofstream(Folder("broken") + "/manifest.json") << "{}";
  Finished list = Template({"list"});
  EXPECT_EQ(list.status, 0);
  EXPECT_TRUE(Has(list.out, "damaged: ")) << list.out;
  EXPECT_TRUE(Has(Template({"list", "--json"}).out, "\"error\":")) << list.out;
  Finished inspected = Template({"inspect", "broken"});
  EXPECT_EQ(inspected.status, 125);
  EXPECT_TRUE(Has(inspected.err, "manifest.json")) << inspected.err;
  EXPECT_EQ(Template({"rm", "broken"}).status, 0);
}

TEST_F(TemplateTest, ABuildThatFailsLeavesNothing) {
  fs::remove_all(home_);
  Finished panic = Build("panic", {"--append", "rdinit=/none root=/dev/none"});
  EXPECT_EQ(panic.status, 125);
  EXPECT_TRUE(Has(panic.err, "cube-vmm: the guest kernel panicked")) << panic.err;
  EXPECT_EQ(std::count(panic.err.begin(), panic.err.end(), '\n'), 1) << panic.err;
  Finished slow = Build("slow", {"--timeout", "0.01", "--json"});
  EXPECT_EQ(slow.status, 125);
  EXPECT_TRUE(Has(slow.out, "{\"ok\":false,\"error\":\"time limit of 0.01 s reached\"}"))
      << slow.out;
  EXPECT_TRUE(fs::is_empty(home_ + "/templates"));
}

}  // namespace
}  // namespace cube::testing
