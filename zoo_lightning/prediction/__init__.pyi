from .inputs import Item as Item
from .inputs import find_images as find_images
from .inputs import with_boxes as with_boxes
from .models import OpenedModel as OpenedModel
from .models import open_model as open_model
from .output import draw_points as draw_points
from .predictor import Prediction as Prediction
from .predictor import Predictor as Predictor
