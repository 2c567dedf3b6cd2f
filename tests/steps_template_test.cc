// `cube-vmm template build --steps`: root disks made step by step inside of machines.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "guestkernel/agent/envd/sandbox_client.h"
#include "templates/testing/tar_writer.h"
#include "tests/busybox_image.h"
#include "tests/envd_sandbox.h"
#include "tests/process.h"
#include "tests/vmm_command.h"

namespace cube::testing {
namespace {

namespace fs = std::filesystem;
using templates::testing::WriteFile;

class StepsTemplateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    top_ = ::testing::TempDir() + "/steps-template";
    home_ = top_ + "/home";
    context_ = top_ + "/context";
    fs::remove_all(top_);
    ASSERT_EQ(setenv("CUBE_HOME", home_.c_str(), 1), 0);
    templates::testing::WriteOciLayout(context_ + "/bb", BusyboxLayers(), kBusyboxConfig, true);
  }
  Finished Build(const std::string& name, const std::string& steps,
                 std::vector<std::string> more = {}) {
    WriteFile(context_ + "/Steps", steps);
    std::vector<std::string> words = {
        Env("CUBE_VMM"), "template",          "build",    name,
        "--steps",       context_ + "/Steps", "--kernel", Env("CUBE_KERNEL"),
        "--initrd",      Env("CUBE_INITRD")};
    words.insert(words.end(), more.begin(), more.end());
    return RunProcess(words);
  }
  static Finished Clone(const std::string& name, const std::string& command) {
    return RunProcess({Env("CUBE_VMM"), "clone", name, "--", "/bin/sh", "-c", command});
  }
  static size_t Count(const std::string& text, const std::string& part) {
    size_t count = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
      ++count;
    }
    return count;
  }
  static bool Has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }
  size_t Layers() const {
    const std::string folder = home_ + "/builds/layers";
    return fs::exists(folder) ? std::distance(fs::directory_iterator(folder), {}) : 0;
  }
  std::string top_, home_, context_;
};

TEST_F(StepsTemplateTest, EachStepIsMadeOnce) {
  WriteFile(context_ + "/files/sub/script", "#!/bin/sh\necho script $1\n");
  fs::permissions(context_ + "/files/sub/script", fs::perms(0751));
  fs::create_symlink("sub/script", context_ + "/files/link");
  WriteFile(context_ + "/files/secret", "not copied");
  WriteFile(context_ + "/one.txt", "1");
  WriteFile(context_ + "/two.txt", "2");
  WriteFile(context_ + "/.dockerignore", "# not these\n**/secret\ntwo.*\n");
  const std::string steps =
      "# a comment\n"
      "FROM ./bb\n"
      "USER root\n"
      "ENV VERSION=7 PATH=/app/sub:$PATH\n"
      "WORKDIR /app\n"
      "COPY --chown=app:web files/ ./\n"
      "COPY --chmod=600 *.txt data/\n"
      "RUN script $VERSION \\\n"
      "    > built && \\\n"
      "    # in between\n"
      "    stat -c '%a %u:%g' sub/script > owner\n"
      "RUN [\"/bin/sh\", \"-c\", \"echo exec form; id; sleep 1000 & pwd\"]\n"
      "USER app\n"
      "WORKDIR home\n"
      "RUN id > /tmp/who; echo $HOME >> /tmp/who\n"
      "ENTRYPOINT [\"/bin/cat\"]\n"
      "CMD [\"/app/built\"]\n";
  Finished built = Build("app", steps);
  ASSERT_EQ(built.status, 0) << built.err;
  EXPECT_EQ(built.out, home_ + "/templates/app\n");
  EXPECT_TRUE(Has(built.err, "exec form\nuid=0(root) gid=0(root)\n/app\n")) << built.err;
  EXPECT_TRUE(Has(built.err, "RUN script $VERSION > built && stat -c")) << built.err;
  // And one made of all.
  const size_t layers = Layers();
  EXPECT_EQ(layers, 6u + 1);
  Finished clone = Clone("app",
                         "id; pwd; echo $VERSION; cat /app/built /app/owner /tmp/who; ls /app "
                         "/app/data; cat /app/link | head -n 1; stat -c '%a %u' /app/data/one.txt; "
                         "cat /proc/mounts | grep ' / '");
  EXPECT_EQ(clone.status, 0) << clone.err;
  const std::string begin =
      "uid=1000(app) gid=1000(app) groups=50(web)\n/app/home\n7\nscript 7\n751 1000:50\n"
      "uid=1000(app) gid=1000(app) groups=50(web)\n/home/app\n"
      "/app:\nbuilt\ndata\nhome\nlink\nowner\nsub\n\n/app/data:\none.txt\n#!/bin/sh\n600 0\n";
  EXPECT_EQ(clone.out.substr(0, begin.size()), begin);
  EXPECT_TRUE(Has(clone.out, " ext4 rw,")) << clone.out;
  EXPECT_EQ(RunProcess({Env("CUBE_VMM"), "clone", "app", "--own-command"}).out, "script 7\n");

  // Again, and nothing runs; another file, and only what comes after it does.
  built = Build("again", steps, {"--json"});
  ASSERT_EQ(built.status, 0) << built.out;
  EXPECT_EQ(Count(built.out, "\"cached\":true"), 13u) << built.out;
  EXPECT_EQ(Layers(), layers);
  WriteFile(context_ + "/one.txt", "changed");
  built = Build("changed", steps, {"--json"});
  ASSERT_EQ(built.status, 0) << built.out;
  EXPECT_EQ(Count(built.out, "\"cached\":true"), 9u) << built.out;
  EXPECT_EQ(Layers(), layers + 5 + 1);
  EXPECT_EQ(Clone("changed", "cat /app/data/one.txt").status, 1);  // it is root's alone
  // What is ignored changes nothing.
  WriteFile(context_ + "/two.txt", "changed");
  EXPECT_EQ(Count(Build("x", steps, {"--json"}).out, "\"cached\":true"), 13u);

  // A template is what others begin with.
  built = Build("more", "FROM app\nRUN cat /app/built > /tmp/more\nUSER root\n");
  ASSERT_EQ(built.status, 0) << built.err;
  clone = Clone("more", "id; pwd; cat /tmp/more; echo $VERSION");
  EXPECT_EQ(clone.out, "uid=0(root) gid=0(root)\n/app/home\nscript 7\n7\n") << clone.err;

  // What only one template needed goes after it, and with the last one the rest.
  auto prune = [] { return RunProcess({Env("CUBE_VMM"), "template", "prune"}).out; };
  auto remove = [](const char* name) {
    EXPECT_EQ(RunProcess({Env("CUBE_VMM"), "template", "rm", name}).status, 0);
  };
  EXPECT_TRUE(prune().starts_with("11 files"));
  remove("more");
  EXPECT_TRUE(prune().starts_with("1 files"));
  EXPECT_EQ(Clone("app", "cat /app/built").out, "script 7\n");
  for (const char* name : {"app", "again", "changed", "x"}) remove(name);
  prune();
  EXPECT_EQ(Layers(), 0u);
  EXPECT_TRUE(fs::is_empty(home_ + "/builds/images"));
}

TEST_F(StepsTemplateTest, WhatIsStartedRunsInEachClone) {
  const std::string steps =
      "FROM ./bb\n"
      "USER root\n"
      "WORKDIR /www\n"
      "RUN echo page > index.html\n"
      "ENV PORT=8080\n"
      "START echo started $PORT; exec httpd -f -p $PORT -h /www\n"
      "READY --timeout=120 wget -q -O /dev/null http://127.0.0.1:8080/\n";
  Finished built = Build("www", steps);
  ASSERT_EQ(built.status, 0) << built.err;
  for (int i = 0; i < 2; ++i) {
    Finished clone =
        Clone("www", "wget -q -O - http://127.0.0.1:8080/; cat /var/log/cube-start.log");
    EXPECT_EQ(clone.out, "page\nstarted 8080\n") << clone.err;
  }
}

// Who does not say as whom and where is the user of the steps, in their folder, with their
// variables.
TEST_F(StepsTemplateTest, ClientsOfAClonesAgentHaveTheDefaultsOfItsSteps) {
  char folder[] = "/tmp/steps_XXXXXX";  // short: it has room for 108 bytes
  ASSERT_NE(mkdtemp(folder), nullptr);
  const std::string vsock = std::string(folder) + "/vsock";
  auto ask = [&](const std::string& script, const agent::envd::SandboxClient::Fields& fields) {
    agent::envd::SandboxClient client(ConnectGuestPort(vsock, 49983));
    EXPECT_TRUE(client.Open("/process.Process/Start", agent::envd::Shell(script), fields));
    return ReadEvents(&client).out + client.error();
  };
  struct Case {
    const char* steps;
    const char* said;
  };
  const Case cases[] = {
      {"FROM ./bb\nUSER root\nENV VERSION=7\nWORKDIR /srv/app\nRUN busybox chmod 777 .\nUSER app\n",
       "uid=1000(app) gid=1000(app) groups=50(web)\n/srv/app\n/home/app 7\n"},
      {"FROM ./bb\nUSER root\nWORKDIR /tmp\nUSER 1000:web\n",
       "uid=1000(app) gid=50(web)\n/tmp\n/home/app\n"},
      {"FROM ./bb\nUSER root\nWORKDIR /\nUSER 4321\n", "uid=4321 gid=0(root)\n/\n/\n"},
  };
  int number = 0;
  for (const Case& each : cases) {
    SCOPED_TRACE(each.steps);
    const std::string name = "defaults" + std::to_string(number++);
    Finished built = Build(name, each.steps, {"--vsock", vsock + "-template"});
    ASSERT_EQ(built.status, 0) << built.err;
    Process clone({Env("CUBE_VMM"), "clone", name, "--vsock", vsock});
    const std::string id = clone.ReadLine();
    EXPECT_EQ(ask("id; pwd; echo $HOME $VERSION", {}), each.said);
    EXPECT_EQ(ask("id -u; echo $CUBE_DEFAULT_USER", {{"Authorization", "Basic cm9vdDo="}}),
              "0\n\n");
    const std::string content = "x";
    agent::http::TestClient client(ConnectGuestPort(vsock, 49983));
    client.SendRequest("POST", "/files?path=file", {{"Content-Type", "application/octet-stream"}},
                       &content);
    const std::string answer = client.ReadAnswer().body;
    if (number == 1) {
      EXPECT_TRUE(Has(answer, "\"path\":\"/srv/app/file\"")) << answer;
    }
    EXPECT_EQ(RunProcess({Env("CUBE_VMM"), "stop", id}).status, 0);
    clone.Finish();
  }
  fs::remove_all(folder);
}

TEST_F(StepsTemplateTest, WhatFailsIsNamed) {
  struct Bad {
    const char* steps;
    std::vector<const char*> messages;
  };
  WriteFile(top_ + "/outside", "outside");
  fs::create_symlink("../outside", context_ + "/escape");
  const Bad cases[] = {
      {"RUN true\n", {"the first step is not FROM"}},
      {"FROM ./bb\nRUM true\n", {"line 2: \"RUM\" is not one of FROM, RUN"}},
      {"FROM nonesuch\n", {"step 1 of 2 (line 1: FROM nonesuch): there is neither a template"}},
      {"FROM ./bb\nUSER root\nRUN echo first; echo the last line >&2; exit 7\n",
       {"step 3 of 4 (line 3: RUN echo first; echo the last line >&2; exit 7): status 7, its last",
        "first\nthe last line\n"}},
      {"FROM ./bb\nUSER nobody\nRUN true\n", {"status 125", "there is no user \"nobody\""}},
      {"FROM ./bb\nRUN [\"/none\"]\n", {"status 127", "cannot run '/none'"}},
      {"FROM ./bb\nCOPY none /\n", {"step 2 of 3", "\"none\" in the build context: No such file"}},
      {"FROM ./bb\nCOPY ../outside /\n", {"\"..\""}},
      {"FROM ./bb\nCOPY escape /\n", {"\"escape\" leads out of the build context"}},
      {"FROM ./bb\nSTART echo why not; exit 3\n",
       {"start command: why not", "start command \"echo why not; exit 3\" ended with status 3"}},
      {"FROM ./bb\nSTART sleep 100\nREADY --timeout=1 false\n",
       {"the ready command \"false\" did not succeed within 1 s, the last time it ended with "
        "status"}},
  };
  for (const Bad& bad : cases) {
    SCOPED_TRACE(bad.steps);
    Finished built = Build("bad", bad.steps);
    EXPECT_EQ(built.status, 125);
    for (const char* message : bad.messages) EXPECT_TRUE(Has(built.err, message)) << built.err;
    EXPECT_TRUE(!fs::exists(home_ + "/templates") || fs::is_empty(home_ + "/templates"));
    EXPECT_TRUE(fs::is_empty(home_ + "/builds/work"));
    std::ifstream log(home_ + "/builds/logs/bad.log");
    std::string text{std::istreambuf_iterator<char>(log), {}};
    EXPECT_TRUE(Has(text, "failed: ")) << text;
  }
}

}  // namespace
}  // namespace cube::testing
