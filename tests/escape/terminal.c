// The operator's terminal. The runner looks for what was typed there in our name.
#define GROUP "terminal"
#include <sys/ioctl.h>
#include <termios.h>

#include "attack.h"

#define GUARD "filter: TIOCSTI, TIOCLINUX, TIOCSETD"

ATTACK(type_into_terminal, kTerminal | kBare, GUARD) {
  const char* text = "evil\n";
  long r = 0;
  for (; *text && r == 0; ++text) r = ioctl(0, TIOCSTI, text);
  return worked("TIOCSTI", r);
}
ATTACK(type_into_terminal_dirty, kTerminal | kBare, GUARD) {
  return worked("TIOCSTI", syscall(SYS_ioctl, 0, TIOCSTI | 0x5L << 32, "e"));
}
ATTACK(type_into_dev_tty, kTerminal | kBare, GUARD) {
  int fd = open("/dev/tty", O_RDWR);
  if (fd < 0) return worked("open", -1);
  return worked("TIOCSTI", ioctl(fd, TIOCSTI, "e"));
}
ATTACK(paste_into_console, kTerminal, GUARD) {
  char selection = 3;
  return worked("TIOCLINUX", ioctl(0, TIOCLINUX, &selection));
}
ATTACK(line_discipline, kTerminal | kBare, GUARD) {
  int discipline = 0;
  return worked("TIOCSETD", ioctl(0, TIOCSETD, &discipline));
}
ATTACK(hang_up_terminal, kTerminal, "filter: vhangup") {
  return worked("vhangup", syscall(SYS_vhangup));
}
