package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/urfave/cli/v2"
	"google.golang.org/protobuf/proto"

	"millrace/cmd/cli/view"
	"millrace/jobs"
	"millrace/pkg/api"
	"millrace/pkg/bytesize"
)

// jobFlags are those of job submit and run.
func jobFlags(short bool) []cli.Flag {
	flags := []cli.Flag{
		&cli.StringFlag{Name: "mapper", Usage: "streaming: shell `COMMAND` that maps lines on standard input"},
		&cli.StringFlag{Name: "combiner", Usage: "streaming: shell `COMMAND` that combines"},
		&cli.StringFlag{Name: "reducer", Usage: "streaming: shell `COMMAND` that reduces"},
		&cli.StringSliceFlag{Name: "file", Usage: "ship `F[#NAME]` to the working directory (repeatable)"},
		&cli.StringSliceFlag{Name: "env", Usage: "`K=V` in the program's environment (repeatable)"},
		&cli.StringSliceFlag{Name: "property", Aliases: []string{"D"}, Usage: "property `key=value` (repeatable)"},
		&cli.BoolFlag{Name: "overwrite", Usage: "replace what is in the output, at commit"},
		&cli.IntFlag{Name: "reduces", Usage: "`N` output parts; 0: map only; default: from the input's size and the slots"},
		&cli.StringFlag{Name: "split-size", Usage: "`SIZE` of a split, default 128MiB"},
		&cli.BoolFlag{Name: "dry-run", Usage: "show the plan, start nothing"},
		&cli.StringFlag{Name: "name", Usage: "`NAME` of the job"},
		&cli.DurationFlag{Name: "timeout", Usage: "cancel the job after this `TIME`"},
		&cli.IntFlag{Name: "priority", Usage: "`N`: higher first, 0 is usual"},
		&cli.StringFlag{Name: "request-id", Usage: "the same `ID` again is the same job"},
		&cli.StringFlag{Name: "input-format", Usage: "`FORMAT` of the input: millrace job formats"},
		&cli.StringFlag{Name: "output-format", Usage: "`FORMAT` of the output"},
		&cli.StringFlag{Name: "compress", Usage: "`CODEC` of the output"},
		&cli.IntFlag{Name: "max-attempts", Usage: "tries `N` per task, default 4"},
		&cli.StringFlag{Name: "memory", Usage: "`SIZE` per attempt; default: the node's memory over its slots"},
		&cli.StringFlag{Name: "max-record", Usage: "`SIZE` of the longest record, default 64MiB, at most a quarter of the memory"},
		&cli.BoolFlag{Name: "local", Usage: "run it in this one process; paths may then be local files"},
	}
	if !short {
		flags = append([]cli.Flag{
			&cli.StringSliceFlag{Name: "input", Usage: "`URL`, prefix or glob to read (repeatable)"},
			&cli.StringFlag{Name: "output", Usage: "`URL`: an empty prefix to write; -: the result to standard output"},
			&cli.StringFlag{Name: "job-file", Aliases: []string{"f"}, Usage: "read the job from a YAML `FILE`; flags go before it"},
			&cli.BoolFlag{Name: "wait", Usage: "follow the job until it has ended"},
		}, flags...)
	}
	return flags
}

func (a *app) runCommand() *cli.Command {
	return a.leaf(spec{name: "run", usage: "submit a job and wait, the short way", args: "PROGRAM INPUT… OUTPUT [-- ARG…]", min: 0, max: -1, handsOn: true, gathers: true, flags: jobFlags(true),
		example: "millrace run wordcount s3://input/ s3://output/words/\nmillrace run grep s3://logs/ - -- -i error      the result on standard output",
		do: func(c *call) error {
			program, places := "", c.args
			if !c.IsSet("mapper") {
				if len(c.args) < 3 {
					return usagef("millrace run wordcount s3://input/ s3://output/words/", "run needs PROGRAM INPUT… OUTPUT")
				}
				program, places = c.args[0], c.args[1:]
			} else if len(c.args) < 2 {
				return usagef("millrace run --mapper CMD s3://input/ s3://output/x/", "run --mapper needs INPUT… OUTPUT")
			}
			spec := &api.JobSpec{Input: places[:len(places)-1], Output: places[len(places)-1]}
			return c.submit(spec, program, true, &mistakes{})
		}})
}

func (a *app) submitCommand() *cli.Command {
	return a.leaf(spec{name: "submit", usage: "submit a job", args: "[PROGRAM] [-- ARG…]", max: 1, handsOn: true, gathers: true, flags: jobFlags(false),
		example: "millrace job submit wordcount --input s3://input/ --output s3://output/words/ --wait\n" +
			"millrace job submit --mapper ./map.py --reducer ./reduce.py --file map.py --file reduce.py --input s3://input/ --output s3://output/x/\n" +
			"millrace job submit -f job.yaml",
		do: func(c *call) error {
			spec, program := &api.JobSpec{}, ""
			var found mistakes
			if c.IsSet("job-file") {
				var err error
				if spec, err = c.readJobFile(c.String("job-file"), &found); err != nil {
					return err
				}
				program = spec.GetProgram().GetName()
			}
			if len(c.args) > 0 {
				program = c.args[0]
			}
			if c.IsSet("input") {
				spec.Input = c.StringSlice("input")
			}
			if c.IsSet("output") {
				spec.Output = c.String("output")
			}
			return c.submit(spec, program, c.Bool("wait"), &found)
		}})
}

// maxJobFile bounds what is read of a job file; the master takes less.
const maxJobFile = 1 << 20 // bytes

// readJobFile reads a job file as far as it can be understood.
func (c *call) readJobFile(file string, found *mistakes) (*api.JobSpec, error) {
	in := c.env.Stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, usagef("name a file that can be read", "job file: %s", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxJobFile+1))
	switch {
	case err != nil:
		return nil, usagef("name a file that can be read", "job file: %s", err)
	case len(data) > maxJobFile:
		return nil, usagef("name inputs by prefix or pattern, put long arguments into a file that is shipped", "job file %s: it has more than 1 MiB", file)
	}
	spec, err := jobs.ParseYAML(data)
	if err != nil {
		found.say("millrace job submit --help; the fields are the flags' names in lowerCamelCase", linesOf(fmt.Sprintf("job file %s: ", file), err)...)
	}
	if spec == nil {
		return nil, found.fault()
	}
	return spec, nil
}

// submit completes a spec from flags and submits it, or runs it here. All that is wrong is said at
// once, what was found already and what the cluster knows of the places with it.
func (c *call) submit(spec *api.JobSpec, program string, wait bool, found *mistakes) error {
	ctx := c.Context.Context
	for _, f := range c.inv.wrong {
		found.say(f.next, f.lines...)
	}
	fileWrong := found.any()
	for _, m := range c.applyFlags(spec) {
		found.say(c.inv.name()+" --help", m)
	}
	toStdout := spec.Output == "-"
	if toStdout && c.json && !c.Bool("dry-run") {
		found.wrong("give --output s3://…, then: millrace results JOB --json", "--output - and --json cannot share standard output")
	}
	if toStdout && spec.RequestId != "" {
		found.wrong("give --output s3://…, or leave --request-id away", "--request-id with --output -: the result of such a job is not kept, so that its repetition could not show it")
	}
	ship := &shipped{paths: map[string]string{}, sizes: map[string]int64{}}
	defer ship.close()
	if err := c.resolve(ctx, spec, program, ship, found); err != nil {
		return err
	}
	if toStdout && jobs.Copies(spec) {
		found.wrong("give a place to copy to", "%s copies files: there is no result to print", jobs.Distcp)
	}
	if c.Bool("local") {
		if err := found.fault(); err != nil {
			return err
		}
		return c.runLocal(ctx, spec, ship)
	}
	for _, problem := range validate(spec, toStdout) {
		if fileWrong && strings.HasPrefix(problem.Error(), "no ") { // it may be there, and wrong
			continue
		}
		next := c.inv.name() + " --help"
		if overlap := new(jobs.OverlapError); errors.As(problem, &overlap) {
			next = overlap.Next()
		}
		found.say(next, problem.Error())
	}
	if found.any() {
		found.askPlaces(ctx, c, spec)
		return found.fault()
	}
	return c.send(ctx, spec, ship, toStdout, wait)
}

// send submits a spec in which nothing was found to be wrong here.
func (c *call) send(ctx context.Context, spec *api.JobSpec, ship *shipped, toStdout, wait bool) error {
	conn, err := c.connect()
	if err != nil {
		return err
	}
	if spec.Cluster == "" {
		spec.Cluster = conn.cluster
	}
	if spec.Store, err = c.jobStore(); err != nil {
		return err
	}
	if toStdout {
		if spec.Output, err = c.scratchOutput(ctx, spec); err != nil {
			return err
		}
		if !c.Bool("dry-run") { // before anything is started: is there a store to read the result from?
			if err := c.mayRead(ctx, spec.Output); err != nil {
				return err
			}
		}
	}
	if !c.Bool("dry-run") { // which starts nothing, and leaves nothing
		err := ship.upload(ctx, conn, func() error { // not for a job that will be refused
			_, err := conn.api().SubmitJob(ctx, connect.NewRequest(&api.SubmitJobRequest{Spec: spec, PlacesOnly: true}))
			return err
		})
		if err != nil {
			return err
		}
	}
	resp, err := conn.api().SubmitJob(ctx, connect.NewRequest(&api.SubmitJobRequest{Spec: spec, DryRun: c.Bool("dry-run")}))
	if err != nil {
		return err
	}
	job := resp.Msg
	switch {
	case c.Bool("dry-run"):
		if toStdout {
			job.Output = "-"
		}
		return c.printPlan(view.OfJob(job), "slot")
	case toStdout:
		return c.followToStdout(ctx, conn, job, spec)
	case wait:
		return c.followAndPrint(ctx, conn, job)
	}
	return c.print(view.OfJob(job), func(w io.Writer) {
		fmt.Fprintln(w, job.GetId())
		fmt.Fprintf(c.env.Stderr, "follow: millrace job wait %s    stop: millrace job cancel %s\n", job.GetId(), job.GetId())
	})
}

// validate checks what can be checked here, so that mistakes are named without a
// round trip. The master checks again, and more. A program that could not be resolved has been named.
func validate(spec *api.JobSpec, toStdout bool) []error {
	check := proto.Clone(spec).(*api.JobSpec)
	if toStdout {
		check.Output = "s3://to-standard-output/x/"
	}
	if check.Program == nil {
		check.Program, check.MapOnly = &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: "unknown"}, false
	}
	return jobs.Validate(check)
}

// applyFlags puts the flags that were given into the spec and returns every mistake.
func (c *call) applyFlags(spec *api.JobSpec) (mistakes []string) {
	size := func(flag string, to *int64) {
		if !c.IsSet(flag) {
			return
		}
		n, err := bytesize.Parse(c.String(flag))
		if err != nil || n == 0 {
			mistakes = append(mistakes, fmt.Sprintf("--%s: %q is not a size: write it like 64MiB, 128MB, 1g or 65536", flag, c.String(flag)))
			return
		}
		*to = n
	}
	size("split-size", &spec.SplitSize)
	size("memory", &spec.MemoryBytes)
	size("max-record", &spec.MaxRecordBytes)
	text := func(flag string, to *string) {
		if c.IsSet(flag) {
			*to = c.String(flag)
		}
	}
	text("name", &spec.Name)
	text("request-id", &spec.RequestId)
	text("input-format", &spec.InputFormat)
	text("output-format", &spec.OutputFormat)
	text("compress", &spec.Compress)
	number := func(flag string, least int, to *int32) {
		if !c.IsSet(flag) {
			return
		}
		n := c.Int(flag)
		if n < least || n > 1<<30 {
			mistakes = append(mistakes, fmt.Sprintf("--%s %d is out of range: at least %d, at most %d", flag, n, least, 1<<30))
			return
		}
		*to = int32(n)
	}
	number("max-attempts", 1, &spec.MaxAttempts)
	number("priority", -(1 << 30), &spec.Priority)
	if c.IsSet("reduces") {
		n := int32(-1)
		if number("reduces", 0, &n); n >= 0 {
			spec.Reduces = &n
		}
	}
	if c.IsSet("overwrite") {
		spec.Overwrite = c.Bool("overwrite")
	}
	if c.IsSet("timeout") {
		if ms := c.Duration("timeout").Milliseconds(); ms > 0 {
			spec.TimeoutMs = ms
		} else {
			mistakes = append(mistakes, fmt.Sprintf("--timeout %s is no time at all", c.Duration("timeout")))
		}
	}
	return mistakes
}

// resolve fills in the program and the shipped files. Without a program that can be run, spec.Program stays nil.
func (c *call) resolve(ctx context.Context, spec *api.JobSpec, program string, ship *shipped, found *mistakes) error {
	from := spec.GetProgram() // of a job file
	streaming := &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_STREAMING}
	for _, k := range []struct {
		flag, file string
		to         *string
	}{{"mapper", from.GetMapper(), &streaming.Mapper}, {"combiner", from.GetCombiner(), &streaming.Combiner}, {"reducer", from.GetReducer(), &streaming.Reducer}} {
		if *k.to = c.String(k.flag); *k.to == "" {
			*k.to = k.file
		}
	}
	args := c.after
	if len(args) == 0 {
		args = from.GetArgs()
	}
	spec.Program = nil
	p := &api.Program{} // to put the settings into, and to check them
	switch {
	case streaming.Mapper+streaming.Reducer != "" && program != "" && program != from.GetName():
		found.wrong(c.inv.name()+" --help", "a job has either a program (%s) or a mapper command, not both", program)
	case streaming.Mapper+streaming.Reducer != "":
		p = streaming
		p.Name, p.Args = firstWord(p.Mapper+" "+p.Reducer), args
		// Without a reducer but with reduces, they sort.
		spec.MapOnly = p.Reducer == "" && spec.GetReduces() == 0
		spec.Program = p
	case streaming.Combiner != "":
		found.wrong("add --mapper CMD (cat passes lines on)", "--combiner goes with --mapper")
	case program == "":
		if !found.any() { // else it may be in the file, and wrong
			found.wrong("millrace job programs", "no program was given")
		}
	default:
		resolved, mapOnly, err := resolveProgram(ctx, program, args, ship)
		if err := found.take(err); err != nil {
			return err
		}
		if resolved != nil {
			p, spec.Program, spec.MapOnly = resolved, resolved, mapOnly
		}
	}
	return c.programSettings(p, from, ship, found)
}

func firstWord(command string) string {
	word, _, _ := strings.Cut(strings.TrimSpace(command), " ")
	word = strings.TrimRight(word, ";|&<>()")
	return word[strings.LastIndex(word, "/")+1:]
}

// programSettings puts environment, properties and files into p.
func (c *call) programSettings(p, from *api.Program, ship *shipped, found *mistakes) error {
	p.Env = pairs("--env", from.GetEnv(), c.StringSlice("env"), found)
	p.Properties = pairs("-D", from.GetProperties(), c.StringSlice("property"), found)
	c.tellHadoopNames(p.Properties)
	var named []string
	for _, f := range from.GetFiles() { // a job file's entries: names as typed
		named = append(named, f.GetName())
	}
	for _, s := range slices.Concat(named, c.StringSlice("file")) {
		path, name := jobs.SplitFile(s)
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			found.wrong("--file F#NAME", "--file %s: the name %q cannot be used", s, name)
			continue
		}
		if slices.ContainsFunc(p.Files, func(f *api.ShippedFile) bool { return f.GetName() == name }) {
			found.wrong("rename one of them: --file F#NAME", "two shipped files are called %s", name)
			continue
		}
		f, err := ship.add(name, path, false)
		if err := found.take(err); err != nil {
			return err
		}
		if f != nil {
			p.Files = append(p.Files, f)
		}
	}
	return nil
}

// pairs reads K=V settings over those of a job file.
func pairs(flag string, base map[string]string, given []string, found *mistakes) map[string]string {
	out := map[string]string{}
	for k, v := range base {
		out[k] = v
	}
	for _, s := range given {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			found.wrong(flag+" NAME=VALUE", "%s %q is not of the form NAME=VALUE", flag, s)
			continue
		}
		out[k] = v
	}
	return out
}
