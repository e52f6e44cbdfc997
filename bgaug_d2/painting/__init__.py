"""One job on the CPU, before and after the model.

``engine_interface.py``  what an engine gets, gives back and must do
``source.py``            reads the source image and checks that it is the one the job names
``passes.py``            a job between two passes through the model, and the result of a pass
``prepare.py``           from a job to its first pass: image, masks, T_hat, or why it is skipped
``finish.py``            from the painted square of a pass back to the image's size
``quality.py``           figures of a painted picture, and the rules that refuse a background
``sidecar.py``           the record that the cache keeps beside a picture
``one_by_one.py``        base class of engines without a diffusion model
"""
