#ifndef CUBE_TEMPLATES_LAYER_MERGE_H_
#define CUBE_TEMPLATES_LAYER_MERGE_H_

#include "base/result.h"
#include "templates/base_disk.h"
#include "templates/build_folder.h"

namespace cube::templates {

// Has one layer in the place of those of `disk`, if there are more than a few: each costs every
// clone a descriptor and a bitmap. The one is kept like others; those that it is made of are for
// later builds.
Status MergeLayers(const BuildFolder& folder, BaseDisk* disk);

}  // namespace cube::templates

#endif  // CUBE_TEMPLATES_LAYER_MERGE_H_
