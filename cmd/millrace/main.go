// Command millrace is every role of a Millrace cluster and its command line.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"millrace/cmd/cli"
	"millrace/jobs/builtin"
)

func main() {
	// A worker starts this binary for the tasks of built-in and streaming programs.
	if os.Getenv("MILLRACE_ATTEMPT_FD") != "" {
		os.Exit(builtin.ServeChild())
	}
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // a terminal that is closed; under nohup it is no end
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	// A second Ctrl-C ends the process at once.
	context.AfterFunc(ctx, stop)
	// A write to a closed pipe is an error to handle, not the end. (Not ignored: that, children would inherit.)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	home, err := os.UserHomeDir()
	if err != nil {
		home = "" // service managers set none
	}
	os.Exit(cli.Run(ctx, os.Args[1:], cli.Env{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Home: home}))
}
