"""Painting processes, one per GPU, and the clients that ask them for pictures.

What a training process uses:

start.py         starts the painting processes of this machine and ends them
painter_info.py  what a training process has to know about them
client.py        asks for pictures; never raises for a fault of a worker
connections.py   one connection for each process, thread and worker
protocol.py      messages, frames, replies, and what a process gets when it starts

Which engine paints, and where:

engines.py       the engines by name: builder, identity of the model, what may be painted with it
devices.py       the torch devices that paint, and the CPU threads of each
specs.py         from settings to what one process gets when it starts

Around the processes, in the parent:

pool.py          starts and stops all processes
supervisor.py    starts, watches and restarts one of them

Inside a process:

process.py       its start, its threads and its end
server.py        answers clients
job_queue.py     the jobs it holds, and which comes next
paint_loop.py    the way of a job: prepare, paint, finish, store
counts.py        counters
"""
