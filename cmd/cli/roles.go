package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"millrace/cmd/cli/devcluster"
	"millrace/master"
	"millrace/master/files"
	"millrace/master/history"
	"millrace/pkg/bytesize"
	"millrace/pkg/embeddedstore"
	"millrace/pkg/logtail"
	"millrace/pkg/nodedir"
	"millrace/worker"
)

func (a *app) masterCommand() *cli.Command {
	return group("master", "run a master; the set of masters", "millrace master list", nil,
		a.leaf(spec{name: "list", aliases: []string{"ls"}, usage: "the site's masters: who leads, who votes, who is up", example: "millrace master list", do: masterList}),
		a.leaf(spec{name: "add", usage: "let a master that is up back into the set that it was taken out of", args: "ID", min: 1, max: 1, example: "millrace master add master-2", do: masterAdd}),
		a.leaf(spec{name: "remove", aliases: []string{"rm"}, usage: "take a master out of the set: it has no vote and no part of the log any more; one that is lost is out of the site for good", args: "ID", min: 1, max: 1, example: "millrace master remove master-2", do: masterRemove}),
		a.leaf(spec{name: "backup", usage: "write the site's state, with the key to its secrets, to a file (- is standard output)", args: "FILE", min: 1, max: 1, example: "millrace master backup millrace.backup", do: masterBackup}),
		a.leaf(spec{name: "restore", usage: "make a master of a backup, in an empty folder, the only one of its site; then run it", args: "FILE", min: 1, max: 1, example: "millrace master restore millrace.backup --dir /var/lib/millrace",
			flags: []cli.Flag{dirFlag(), &cli.StringFlag{Name: "name", Usage: "`NAME` of the node; default: the host's"},
				&cli.BoolFlag{Name: "check", Usage: "say whether FILE is whole and could be restored, and restore nothing"}}, do: masterRestore}),
		a.leaf(spec{name: "recover", usage: "make a stopped master the only one, when the majority is lost for good; then run it, and never the others", example: "millrace master recover --dir /var/lib/millrace",
			flags: []cli.Flag{dirFlag()}, do: masterRecover}),
		a.leaf(spec{name: "run", usage: "run a master in the foreground; the first start makes the site, or joins one with --join and --token", example: "AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… millrace master run --dir /var/lib/millrace --listen :7400 --advertise 10.0.0.1 --s3 http://minio:9000",
			flags: append([]cli.Flag{
				dirFlag(),
				&cli.StringFlag{Name: "listen", Usage: "`HOST:PORT` to serve at", Value: ":7400"},
				&cli.StringFlag{Name: "advertise", Usage: "`HOST[:PORT]` by which others reach it"},
				&cli.StringFlag{Name: "raft-listen", Usage: "`HOST:PORT` for masters among themselves", Value: ":7401"},
				&cli.StringFlag{Name: "gossip-listen", Usage: "`HOST:PORT` for gossip, UDP and TCP", Value: ":7402"},
				&cli.StringSliceFlag{Name: "join", Usage: "`URL` of a master of the site to join, at the first start (repeatable)"},
				&cli.StringFlag{Name: "token", Usage: "join `TOKEN` for a master, at the first start; - reads it from standard input, @FILE from a file"},
				&cli.StringFlag{Name: "name", Usage: "`NAME` of the node, at its first start; default: the host's"},
				&cli.StringFlag{Name: "system", Usage: "`URL` of the site's own prefix in the object store, at its first start; default s3://millrace-system/"},
				keepJobsFlag(), keepHistoryFlag(), trashFlag(),
			}, providerFlags()...), do: masterRun}))
}

func (a *app) workerCommand() *cli.Command {
	return group("worker", "run a worker", "millrace worker --dir /var/lib/millrace --join https://10.0.0.1:7400 --token @token", nil,
		a.leaf(spec{name: "run", usage: "run a worker in the foreground; a token is needed at its first start only", example: "millrace join-token create --role task > token\nmillrace worker --dir /var/lib/millrace --join https://10.0.0.1:7400 --token @token --slots 4",
			flags: []cli.Flag{
				dirFlag(),
				&cli.StringSliceFlag{Name: "join", Usage: "`URL` of a master (repeatable)"},
				&cli.StringFlag{Name: "token", Usage: "join `TOKEN`; - reads it from standard input, @FILE from a file"},
				&cli.IntFlag{Name: "slots", Usage: "attempts at once, `N`; default: one per CPU"},
				&cli.StringFlag{Name: "listen", Usage: "`HOST:PORT` to serve at; default " + workerListen + ", or any free port if another node has that"},
				&cli.StringFlag{Name: "advertise", Usage: "`HOST[:PORT]` by which others reach it"},
				&cli.StringFlag{Name: "gossip-listen", Usage: "`HOST:PORT` for gossip, UDP and TCP; default " + workerGossip + ", or any free port"},
				&cli.StringFlag{Name: "memory", Usage: "`SIZE` for this node and its attempts; default: the machine's"},
				&cli.StringFlag{Name: "name", Usage: "`NAME` of the node; default: the host's"},
				&cli.StringSliceFlag{Name: "data-dir", Usage: "`DIR` where a core node keeps blocks, one for each disk (repeatable); default: blocks, in --dir"},
				&cli.StringFlag{Name: "data-reserve", Usage: "`SIZE` that blocks leave free on each disk; default: a twentieth of the smallest, at most 10 GiB"},
				&cli.StringFlag{Name: "rack", Usage: "`NAME` of what fails as a whole, a rack or a zone: a block's replicas are spread over two"},
				&cli.StringFlag{Name: "task-user", Usage: "`NAME` of the system's user that attempts run as, shut out of all that the node keeps; the worker has to run as root for it; default: the worker's own"},
				&cli.BoolFlag{Name: "leave-on-term", Usage: "SIGTERM has the node leave the site for good: it is drained first, and keeps nothing; for containers that are not to come back"},
			}, do: workerRun}))
}

func (a *app) objectStoreCommand() *cli.Command {
	return a.leaf(spec{name: "object-store", usage: "run the embedded object store in the foreground", example: "millrace object-store --dir /var/lib/millrace/store --listen 127.0.0.1:9000",
		flags: []cli.Flag{dirFlag(), &cli.StringFlag{Name: "listen", Usage: "`HOST:PORT` on loopback", Value: "127.0.0.1:9000"}}, do: objectStoreRun})
}

func dirFlag() cli.Flag {
	return &cli.StringFlag{Name: "dir", Usage: "`DIR` where the node keeps everything"}
}

func keepJobsFlag() cli.Flag {
	return &cli.IntFlag{Name: "keep-jobs", Usage: "the `N` jobs that ended last stay with the masters, older ones move to the history in the object store; the same for all masters", Value: history.DefaultKeep}
}

func keepHistoryFlag() cli.Flag {
	return &cli.DurationFlag{Name: "keep-history", Usage: "`TIME` after which a job in the history is deleted, its plan and logs with it; 0: never; the same for all masters", Value: history.DefaultRetention}
}

func trashFlag() cli.Flag {
	return &cli.DurationFlag{Name: "trash-age", Usage: "`TIME` for which what was removed from hdfs:// stays in its trash; the same for all masters", Value: files.DefaultTrashAge}
}

// checkKeep refuses what cannot be kept.
func (c *call) checkKeep() error {
	if c.Int("keep-jobs") < 1 {
		return usagef("--keep-jobs 1000", "--keep-jobs %d: at least 1", c.Int("keep-jobs"))
	}
	if c.Duration("keep-history") < 0 {
		return usagef("--keep-history 720h", "--keep-history %s: it cannot be less than 0", c.Duration("keep-history"))
	}
	if c.Duration("trash-age") < time.Minute {
		return usagef("--trash-age 24h", "--trash-age %s: at least a minute; what shall not go to the trash: millrace fs rm --skip-trash", c.Duration("trash-age"))
	}
	return nil
}

// roleDir is the folder of a node.
func (c *call) roleDir() (string, error) {
	dir := c.String("dir")
	if dir == "" {
		return "", usagef(c.inv.name()+" --dir DIR", "%s needs --dir DIR, where it keeps everything", c.inv.name())
	}
	return filepath.Abs(dir)
}

// role runs one role until it is told to end: by a signal, or by the end of the
// process that started it (the lifeline).
func (c *call) role(name string, run func(ctx context.Context, dir string, log *zap.Logger, tail *logtail.Tail) error) error {
	dir, err := c.roleDir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return usagef("name a folder that can be made: "+c.inv.name()+" --dir DIR", "--dir: %s", err)
	}
	ctx, stop, err := c.lifeline(c.Context.Context)
	if err != nil {
		return err
	}
	defer stop()
	tail := &logtail.Tail{}
	log := newLogger(io.MultiWriter(c.env.Stderr, tail)).Named(name)
	defer log.Sync()
	err = run(ctx, dir, log, tail)
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil // ended as it was told
	}
	return c.roleFault(c.inv.name(), dir, err)
}

// lifeline ends ctx when the pipe that the starting process holds is closed: whatever way
// it died, nothing that it started outlives it.
func (c *call) lifeline(parent context.Context) (context.Context, func(), error) {
	ctx, cancel := context.WithCancel(parent)
	value := c.env.Getenv(devcluster.LifelineEnv)
	if value == "" {
		return ctx, cancel, nil
	}
	fd, err := strconv.Atoi(value)
	if err != nil || fd < 3 {
		cancel()
		return nil, nil, usagef("unset "+devcluster.LifelineEnv, "%s=%q is no file descriptor", devcluster.LifelineEnv, value)
	}
	if err := c.keepLife(fd); err != nil {
		cancel()
		return nil, nil, err
	}
	// What this process starts must inherit neither the descriptors nor the words.
	syscall.CloseOnExec(fd)
	syscall.CloseOnExec(fd + 1)
	os.Unsetenv(devcluster.LifelineEnv)
	f := os.NewFile(uintptr(fd), "lifeline")
	go func() {
		io.Copy(io.Discard, f) // ends at EOF, or when the process does
		cancel()
	}()
	return ctx, cancel, nil
}

// newLogger writes a line per event for people and log collectors.
func newLogger(w io.Writer) *zap.Logger {
	e := zap.NewProductionEncoderConfig()
	e.EncodeTime = zapcore.ISO8601TimeEncoder
	e.EncodeLevel = zapcore.CapitalLevelEncoder
	e.EncodeDuration = zapcore.StringDurationEncoder
	return zap.New(zapcore.NewCore(zapcore.NewConsoleEncoder(e), zapcore.Lock(zapcore.AddSync(w)), zap.InfoLevel))
}

func masterRun(c *call) error {
	source, err := c.storage()
	if err != nil {
		return err
	}
	token, err := c.secret("token")
	if err != nil {
		return err
	}
	if err := c.checkKeep(); err != nil {
		return err
	}
	if err := c.checkNewSite(); err != nil {
		return err
	}
	return c.role("master", func(ctx context.Context, dir string, log *zap.Logger, tail *logtail.Tail) error {
		providers, usual, err := c.providers()
		if err != nil {
			return err
		}
		conf := master.Config{Providers: providers, DefaultProvider: usual, Dir: dir, Listen: c.String("listen"), Advertise: c.String("advertise"), RaftListen: c.String("raft-listen"),
			GossipListen: c.String("gossip-listen"), SystemPrefix: c.String("system"), Join: c.StringSlice("join"), Token: token, Name: c.String("name"), Version: Version, Log: log, LogTail: tail,
			KeepJobs: c.Int("keep-jobs"), KeepHistory: c.Duration("keep-history"), TrashAge: c.Duration("trash-age")}
		if conf.KeepHistory == 0 {
			conf.KeepHistory = -1
		}
		if source.S3.Endpoint != "" {
			conf.Store = apiStore(source.S3)
		}
		m, err := master.New(conf)
		if err != nil {
			return usagef("millrace master run --help", "%s", err)
		}
		return m.Run(ctx)
	})
}

func workerRun(c *call) error {
	var memory int64
	var err error
	if s := c.String("memory"); s != "" {
		if memory, err = bytesize.Parse(s); err != nil {
			return usagef("--memory 8GiB", "--memory: %s", err)
		}
	}
	if c.IsSet("slots") && c.Int("slots") < 1 {
		return usagef("--slots 4", "--slots %d: at least 1", c.Int("slots"))
	}
	var reserve int64
	if s := c.String("data-reserve"); s != "" {
		if reserve, err = bytesize.Parse(s); err != nil {
			return usagef("--data-reserve 10GiB", "--data-reserve: %s", err)
		}
	}
	dataDirs := c.StringSlice("data-dir")
	for i, dir := range dataDirs {
		if dataDirs[i], err = filepath.Abs(dir); err != nil {
			return usagef("--data-dir /mnt/disk1", "--data-dir: %s", err)
		}
	}
	token, err := c.secret("token")
	if err != nil {
		return err
	}
	name := c.String("name")
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return fmt.Errorf("host name: %w", err)
		}
	}
	join := c.StringSlice("join")
	if len(join) == 0 {
		join = c.servers()
	}
	return c.role("worker", func(ctx context.Context, dir string, log *zap.Logger, tail *logtail.Tail) error {
		run := func(listen, gossip string) error {
			w, err := worker.New(worker.Config{Dir: dir, Join: join, Token: token, Listen: cmp.Or(c.String("listen"), listen), Advertise: c.String("advertise"),
				GossipListen: cmp.Or(c.String("gossip-listen"), gossip), Slots: c.Int("slots"), MemoryBytes: memory, Name: name, Version: Version, Log: log,
				DataDirs: dataDirs, BlockReserve: reserve, Rack: c.String("rack"),
				LogTail: tail, LeaveOnTerm: c.Bool("leave-on-term"), TaskUser: c.String("task-user")})
			if err != nil {
				return usagef("millrace worker run --help", "%s", err)
			}
			return w.Run(ctx)
		}
		// A second worker on one machine needs no thought: masters learn from it where it serves.
		err := run(workerListen, workerGossip)
		if errors.Is(err, syscall.EADDRINUSE) && !(c.IsSet("listen") && c.IsSet("gossip-listen")) {
			return run(":0", ":0")
		}
		return err
	})
}

// Where a worker serves if nobody says otherwise.
const (
	workerListen = ":7410"
	workerGossip = ":7412"
)

// secret reads a flag's value that may be - (standard input) or @FILE, so that
// it need not be seen in a list of processes.
func (c *call) secret(flag string) (string, error) {
	return c.secretOf("--"+flag, c.String(flag))
}

// secretOf reads a value in the same way; what names it.
func (c *call) secretOf(what, value string) (string, error) {
	var data []byte
	var err error
	switch {
	case value == "-":
		data, err = io.ReadAll(io.LimitReader(c.env.Stdin, 64<<10))
	case strings.HasPrefix(value, "@"):
		data, err = os.ReadFile(value[1:])
	default:
		return value, nil
	}
	if err != nil {
		return "", usagef(what+" @FILE", "%s: %s", what, err)
	}
	return strings.TrimSpace(string(data)), nil
}

func objectStoreRun(c *call) error {
	host, _, err := net.SplitHostPort(c.String("listen"))
	if err != nil {
		return usagef("--listen 127.0.0.1:9000", "--listen %s: not of the form HOST:PORT", c.String("listen"))
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return usagef("--listen 127.0.0.1:9000; for storage on the network use MinIO or the like", "--listen %s: the embedded object store speaks plain HTTP, so it serves on loopback only", c.String("listen"))
	}
	return c.role("object-store", func(ctx context.Context, dir string, log *zap.Logger, _ *logtail.Tail) error {
		folder, err := nodedir.Open(dir, Version)
		if err != nil {
			return err
		}
		defer folder.Close()
		keys, err := devcluster.LoadKeys(filepath.Join(dir, "keys.json"), c.env.Getenv)
		if err != nil {
			return err
		}
		log.Info("object store starts", zap.String("listen", c.String("listen")), zap.String("dir", dir))
		return embeddedstore.Run(ctx, embeddedstore.Config{Dir: dir, Listen: c.String("listen"), AccessKey: keys.AccessKey, SecretKey: keys.SecretKey, Region: "us-east-1"})
	})
}
