#ifndef CUBE_BASE_PROGRAM_PAGES_H_
#define CUBE_BASE_PROGRAM_PAGES_H_

namespace cube {

// Gives back the memory of the running program's code and constants. What is still used comes back
// from the page cache at its next use, so this is for a process that has done once what it will not
// do again. Does nothing for shared libraries. Any thread; others may go on running.
void ReleaseProgramPages();

}  // namespace cube

#endif  // CUBE_BASE_PROGRAM_PAGES_H_
