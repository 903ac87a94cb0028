package mapreduce

import (
	"millrace/jobs/engine"
	"millrace/jobs/task"
)

// mapTask is one map task of a job: what stands between the engine and Map.
type mapTask struct {
	ctx   Context
	do    func(ctx *Context, key, value []byte) error
	state any // the Mapper, if there is one
}

func (j Job) mapper(t *task.Context) (task.Mapper, error) {
	m := &mapTask{ctx: Context{t: t}, do: j.Map}
	if j.NewMapper != nil {
		mapper := j.NewMapper()
		m.do, m.state = mapper.Map, mapper
	}
	return m, setUp(&m.ctx, m.state)
}

func (m *mapTask) Map(key, value []byte) error { return m.do(&m.ctx, key, value) }
func (m *mapTask) Close() error                { return cleanUp(&m.ctx, m.state) }
func (m *mapTask) Abort()                      {}

// reduceTask is one reduce task of a job.
type reduceTask struct {
	ctx    Context
	do     func(ctx *Context, key []byte, values *Values) error
	state  any
	values Values // the same for all groups: nothing is allocated per key
}

func (j Job) reducer(t *task.Context) (task.Reducer, error) {
	r := &reduceTask{ctx: Context{t: t}, do: j.Reduce}
	if j.NewReducer != nil {
		reducer := j.NewReducer()
		r.do, r.state = reducer.Reduce, reducer
	}
	return r, setUp(&r.ctx, r.state)
}

func (r *reduceTask) Reduce(key []byte, values *engine.Values) error {
	r.values.v = values
	return r.do(&r.ctx, key, &r.values)
}

func (r *reduceTask) Close() error { return cleanUp(&r.ctx, r.state) }
func (r *reduceTask) Abort()       {}

func setUp(ctx *Context, state any) error {
	if s, ok := state.(setupper); ok {
		return s.Setup(ctx)
	}
	return nil
}

func cleanUp(ctx *Context, state any) error {
	if c, ok := state.(cleaner); ok {
		return c.Cleanup(ctx)
	}
	return nil
}

// combiner makes the combiner of one map task: its Context emits back into the engine.
func (j Job) combiner(t *task.Context) engine.CombineFunc {
	ctx := &Context{t: t}
	values := &Values{}
	return func(key []byte, from *engine.Values, emit engine.EmitFunc) error {
		ctx.combine, ctx.err, values.v = emit, nil, from
		if err := j.Combine(ctx, key, values); err != nil {
			return err
		}
		return ctx.err
	}
}
