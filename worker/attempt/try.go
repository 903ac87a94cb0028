package attempt

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Try finds out, before there is a node, whether a worker on this machine could run attempts as the user: it starts a program so, in
// the folder above the node's, and waits for it. Who calls it must have opened that folder.
func (u *User) Try(ctx context.Context, dir, program string, args ...string) error {
	if err := u.separable(gids{lowestGroup, highestGroup - lowestGroup + 1}); err != nil {
		return err
	}
	if at := u.barred(filepath.Dir(program)); at != "" {
		return fmt.Errorf("user %s cannot start %s: %s is closed to it", u.name, program, at)
	}
	if err := u.readable(program); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = dir, []string{"PATH=/usr/bin:/bin", "HOME=" + u.home}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: u.credential(lowestGroup)}
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	if cmd.Process == nil {
		return u.explain(err, dir, program, false)
	}
	return fmt.Errorf("%s as user %s: %w: %s", program, u.name, err, strings.TrimSpace(string(out)))
}
