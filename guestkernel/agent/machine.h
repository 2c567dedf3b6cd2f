#ifndef CUBE_GUESTKERNEL_AGENT_MACHINE_H_
#define CUBE_GUESTKERNEL_AGENT_MACHINE_H_

#include <string>

#include "base/result.h"

namespace cube::agent {

// Makes sure that descriptors 0, 1 and 2 are open: on the console, else on nothing at all.
void OpenStandardFds();

// Gives the machine a name.
Status SetHostName(const std::string& name);

// Brings the loopback interface up; the kernel gives it its addresses.
Status BringUpLoopback();

// Lets the agent have as many open files as servers do, and programs raise their limit as high.
void RaiseFileLimit();

// Has the kernel report free memory to the host in pieces of 128 KiB and more. Of itself it reports
// blocks of 4 MiB only, and those only while 32 of them are free: a guest of 128 MiB never would.
void ReportSmallFreeAreas();

// Says why on the console and ends the machine: an agent that cannot serve is of no use.
[[noreturn]] void Die(const Error& error);

}  // namespace cube::agent

#endif  // CUBE_GUESTKERNEL_AGENT_MACHINE_H_
