#ifndef CUBE_TEMPLATES_STEP_BUILDER_H_
#define CUBE_TEMPLATES_STEP_BUILDER_H_

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "templates/base_disk.h"
#include "templates/build_context.h"
#include "templates/build_folder.h"
#include "templates/progress.h"
#include "templates/steps.h"
#include "templates/vmm_program.h"

namespace cube::templates {

// What is started before the template is frozen.
struct ServiceCommands {
  std::string start;
  std::string ready;
  uint32_t seconds = 60;  // that `ready` has to succeed
};

// Makes a root disk step by step. What a step changes is a layer over the disk before it, made by a
// machine of its own, which ends before the layer is frozen; a layer is known by the key of that
// disk and all that the step depends on, so that it is made once.
class StepBuilder {
 public:
  // All outlive this. `home` is $CUBE_HOME; paths of images in FROM are from the build context's
  // folder `context_path`.
  struct Parts {
    const VmmProgram* vmm;
    const BuildFolder* folder;
    const BuildContext* context;
    Progress* progress;
    std::string home;
    std::string context_path;
    uint64_t disk_size = 0;  // of an image in FROM; 0: the content's and room
  };
  explicit StepBuilder(Parts parts) : parts_(std::move(parts)) {}

  // Carries the steps out; the progress counts one more, the template's freezing. Errors say which
  // step failed.
  Status Run(const StepList& list);

  // Then: the disk, and whether something is to be started.
  const BaseDisk& disk() const { return disk_; }
  bool has_service() const { return service_.has_value(); }

 private:
  Status RunStep(const Step& step, bool* cached);
  Status From(const std::string& name, bool* cached);
  Status FromTemplate(const std::string& folder);
  Status FromDisk(const std::string& image);
  Status Copy(const Step& step, bool* cached);
  Status Command(const Step& step, bool* cached);
  Status SetEnvironment(const Step& step);
  Status SetWorkingDirectory(const std::string& word);
  // Puts entries on the disk, and the working directories that are not made yet.
  Status Unpack(std::vector<CopyEntry> entries, bool* cached);
  // Makes the layer with that key, unless it is there, by running a machine's program.
  Status MakeLayer(const std::string& key, const GuestProgram& program, bool* cached);
  Status WriteService(bool* cached);
  Result<std::string> Expand(const std::string& word) const;
  std::string Absolute(const std::string& path) const;
  Status FitsLayers() const;

  Parts parts_;
  BaseDisk disk_;
  std::vector<CopyEntry> folders_;  // to be made before the next step needs them
  std::optional<ServiceCommands> service_;
};

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_STEP_BUILDER_H_
